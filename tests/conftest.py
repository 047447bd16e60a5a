from hypothesis import HealthCheck, settings

# The machines that run this are shared and noisy, so how long an example took says nothing: no
# deadline, no complaint about slow generation. Derandomized, a red run is red for everybody.
settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci")
