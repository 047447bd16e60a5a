"""TLS by files. There is no option to do without certificates: an authority of one's own takes one file."""

from __future__ import annotations

import ssl


class BadFile(Exception):
    """A file that was named on the command line will not do."""


def client_context(ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext | None:
    """Make what a client needs; `None` where the default will do.

    Args:
        ca: File of the authorities to trust, instead of the system's.
        cert: File of our own certificate, with its chain.
        key: File of its private key; `None` if that is in `cert`.

    Raises:
        BadFile: If one cannot be read, or does not fit.
    """
    if ca is None and cert is None:
        return None
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise BadFile(f"--ca: {ca}: {_reason(error)}") from error
    if cert is not None:
        _load(context, cert, key)
    return context


def server_context(cert: str | None, key: str | None) -> ssl.SSLContext | None:
    """Make what a server needs; `None` to speak no TLS.

    Raises:
        BadFile: If a file cannot be read, or does not fit.
    """
    if cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load(context, cert, key)
    return context


def _load(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:
        files = f"--cert: {cert}" if key is None else f"--cert and --key: {cert}, {key}"
        raise BadFile(f"{files}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    # Of `SSLError`, which is an `OSError` too, the number means nothing.
    if isinstance(error, ssl.SSLError):
        return f"holds no such PEM ({error.reason or 'unknown'})"
    return error.strerror or type(error).__name__
