/* The server of the speed comparison: epoll, one thread, plain TCP and TLS. None of the contenders wrote it.
 *
 * It has to be much faster than any client, or it would be the server that is measured. So it never takes a message
 * apart that it need not: what a client sends is unmasked where it lies in the read buffer, the shorter header of a
 * server's frame goes in front of it, and the whole buffer of echoes leaves with one write. It stops reading while
 * what it wrote has not gone out, as any server must that is not to run out of memory.
 *
 * If it is told to, it does not sleep at once when there is nothing to do. To wake a sleeping process on another core
 * takes longer than most of what is measured, and a round trip would tell of that and of little else.
 *
 * Usage: _speed_server CERTIFICATE.pem KEY.pem. Prints its ports as JSON in one line, and ends when its standard input
 * does, so that it cannot outlive whoever started it.
 *
 *   /echo         echoes text and binary frames
 *   /flood/SIZE   a message "N" is answered by N text messages of SIZE bytes
 *   /sink         a message "N" announces N messages, which are read in silence; then "done" is sent
 *   /drop/rst     no WebSocket: ends all WebSockets at once, with RST
 *   /drop/fin     the same with FIN, and no close frame
 *   /looks/N      no WebSocket: from now on it looks for work N times in vain before it sleeps, which is 0 at first
 *
 * What is no WebSocket is answered with the nanoseconds for which it has been at work so far.
 *
 * The two `raw` ports echo bytes, without HTTP and WebSocket.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
    READ_SIZE = 256 * 1024, /* what one read takes at most */
    SLACK = 32,             /* in front of it: the head of a frame of which the rest came later, and "done" */
    FLOOD_SIZE = 256 * 1024,
    FLOOD_TURNS = 8, /* writes for one connection before others have their turn */
    REQUEST_SIZE = 8192,
    COMMAND_SIZE = 24,
    HEAD_SIZE = 14,
    FLOOD_KINDS = 8,
};
enum kind { PLAIN, TLS, RAW, RAW_TLS, KINDS };
enum mode { REQUEST, BYTES, ECHO, FLOOD, SINK };
enum action { COPY, SKIP, COMMAND };
enum opcode { CLOSE = 8, PING = 9, PONG = 10 };

struct flood {
    uint64_t size; /* of a message's body */
    size_t frame;  /* of its frame */
    size_t length; /* of as many whole frames as there are here */
    uint8_t *frames;
};

struct connection {
    int fd;
    uint32_t interest;
    SSL *tls; /* NULL for plain TCP */
    bool is_shaken, is_closing;
    enum mode mode;
    struct connection *next, *previous;
    /* What waits to be written. */
    uint8_t *waiting;
    size_t waiting_start, waiting_end;
    /* A request, then heads of frames, of which only a part is here. */
    char *request;
    size_t part_length;
    uint8_t part[HEAD_SIZE];
    /* The frame that is being read. */
    uint64_t left;
    uint32_t mask;
    enum action action;
    bool is_last, is_control;
    /* Commands, and what they asked for. */
    char command[COMMAND_SIZE];
    size_t command_length;
    const struct flood *flood;
    uint64_t flood_left;
    size_t flood_at;
    uint64_t sink_left;
};

static const char *const NAMES[KINDS] = {"plain", "tls", "raw", "raw_tls"};
static int listeners[KINDS];
static int poller;
static SSL_CTX *tls_context;
static struct connection all = {.next = &all, .previous = &all};
static struct flood floods[FLOOD_KINDS];
static uint8_t buffer[SLACK + READ_SIZE];
static uint64_t busy;
static long looks;

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* ------------------------------------------------------------------------------------ bytes in and out */

static void watch(struct connection *c, uint32_t interest) {
    if (c->interest == interest)
        return;
    struct epoll_event event = {.events = interest, .data.ptr = c};
    if (epoll_ctl(poller, c->interest ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, &event) < 0)
        die("epoll_ctl");
    c->interest = interest;
}

static void drop(struct connection *c) {
    c->next->previous = c->previous;
    c->previous->next = c->next;
    SSL_free(c->tls);
    close(c->fd);
    free(c->waiting);
    free(c->request);
    free(c);
}

/* Read into the buffer; 0 if nothing is there, -1 at the end. */
static ssize_t take(struct connection *c, uint8_t *into, size_t room) {
    if (c->tls == NULL) {
        ssize_t got = recv(c->fd, into, room, 0);
        return got > 0 ? got : got < 0 && errno == EAGAIN ? 0 : -1;
    }
    size_t length = 0, got;
    do { /* a record at a time, and no system call in vain to find that there is no more */
        if (SSL_read_ex(c->tls, into + length, room - length, &got) != 1)
            return length || SSL_get_error(c->tls, 0) == SSL_ERROR_WANT_READ ? (ssize_t)length : -1;
        length += got;
    } while (length < room && SSL_has_pending(c->tls));
    return (ssize_t)length;
}

/* Write what the network takes now; -1 if the connection is gone. */
static ssize_t give(struct connection *c, const uint8_t *data, size_t length) {
    if (c->tls == NULL) {
        ssize_t sent = send(c->fd, data, length, MSG_NOSIGNAL);
        return sent >= 0 ? sent : errno == EAGAIN ? 0 : -1;
    }
    size_t sent = 0, part;
    while (sent < length) { /* a record at a time */
        if (SSL_write_ex(c->tls, data + sent, length - sent, &part) != 1)
            return SSL_get_error(c->tls, 0) == SSL_ERROR_WANT_WRITE ? (ssize_t)sent : -1;
        sent += part;
    }
    return (ssize_t)sent;
}

/* Write now, and keep what the network does not take. Only called when nothing waits. */
static bool put(struct connection *c, const uint8_t *data, size_t length) {
    ssize_t sent = length ? give(c, data, length) : 0;
    if (sent < 0)
        return false;
    if ((size_t)sent < length) {
        c->waiting_start = 0;
        c->waiting_end = length - (size_t)sent;
        c->waiting = realloc(c->waiting, c->waiting_end);
        memcpy(c->waiting, data + sent, c->waiting_end);
    }
    return true;
}

static bool flush(struct connection *c) {
    if (c->waiting == NULL)
        return true;
    ssize_t sent = give(c, c->waiting + c->waiting_start, c->waiting_end - c->waiting_start);
    if (sent < 0)
        return false;
    c->waiting_start += (size_t)sent;
    if (c->waiting_start == c->waiting_end) {
        free(c->waiting);
        c->waiting = NULL;
    }
    return true;
}

/* ------------------------------------------------------------------------------------ the flood */

static size_t write_head(uint8_t *out, uint8_t first, uint64_t length) {
    size_t extra = length < 126 ? 0 : length < 65536 ? 2 : 8;
    out[0] = first;
    out[1] = extra == 0 ? (uint8_t)length : extra == 2 ? 126 : 127;
    for (size_t i = 0; i < extra; i++)
        out[2 + i] = (uint8_t)(length >> 8 * (extra - 1 - i));
    return 2 + extra;
}

static const struct flood *find_flood(uint64_t size) {
    struct flood *f = floods;
    while (f->frames != NULL && f->size != size)
        if (++f == floods + FLOOD_KINDS)
            return NULL;
    if (f->frames == NULL) {
        uint8_t head[10];
        size_t head_length = write_head(head, 0x81, size);
        f->size = size;
        f->frame = head_length + size;
        f->length = FLOOD_SIZE > f->frame ? FLOOD_SIZE / f->frame * f->frame : f->frame;
        f->frames = malloc(f->length);
        for (size_t at = 0; at < f->length; at += f->frame) {
            memcpy(f->frames + at, head, head_length);
            memset(f->frames + at + head_length, 'x', size);
        }
    }
    return f;
}

static bool pour(struct connection *c) {
    for (int turn = 0; turn < FLOOD_TURNS && c->flood_left > 0; turn++) {
        size_t part = c->flood->length - c->flood_at;
        if (part > c->flood_left)
            part = c->flood_left;
        ssize_t sent = give(c, c->flood->frames + c->flood_at, part);
        if (sent < 0)
            return false;
        c->flood_left -= (uint64_t)sent;
        c->flood_at = (c->flood_at + (size_t)sent) % c->flood->length;
        if ((size_t)sent < part)
            break;
    }
    return true;
}

/* ------------------------------------------------------------------------------------ frames */

/* Read a client's frame's head; its length, or 0 if it is not all here. */
static size_t read_head(struct connection *c, const uint8_t *in, size_t length, uint8_t *first, uint64_t *body) {
    size_t extra = length < 2 || (in[1] & 127) < 126 ? 0 : (in[1] & 127) == 126 ? 2 : 8;
    if (length < 6 + extra)
        return 0;
    *first = in[0];
    *body = extra ? 0 : in[1] & 127;
    for (size_t i = 0; i < extra; i++)
        *body = *body << 8 | in[2 + i];
    c->is_last = in[0] & 0x80;
    memcpy(&c->mask, in + 2 + extra, 4);
    return 6 + extra;
}

/* Start a frame; give the length of the head of the frame that answers it, written to `out`. */
static size_t begin(struct connection *c, uint8_t first, uint64_t body, uint8_t *out) {
    uint8_t opcode = first & 15;
    c->left = body;
    c->is_control = opcode >= CLOSE;
    c->action = opcode == PONG                      ? SKIP
                : c->is_control || c->mode == ECHO  ? COPY
                : c->mode == FLOOD || !c->sink_left ? COMMAND
                                                    : SKIP;
    if (c->action != COPY)
        return 0;
    c->is_closing = opcode == CLOSE;
    return write_head(out, opcode == PING ? 0x80 | PONG : first, body);
}

/* Unmask forward; `out` may lie anywhere at or before `in`. */
static void unmask(struct connection *c, const uint8_t *in, uint8_t *out, size_t length) {
    uint64_t mask = (uint64_t)c->mask << 32 | c->mask, word;
    size_t at = 0;
    for (; at + 8 <= length; at += 8) {
        memcpy(&word, in + at, 8);
        word ^= mask;
        memcpy(out + at, &word, 8);
    }
    for (; at < length; at++)
        out[at] = in[at] ^ (uint8_t)(mask >> 8 * (at & 7));
    unsigned turn = 8 * (length & 3);
    if (turn)
        c->mask = c->mask >> turn | c->mask << (32 - turn);
}

static void note_command(struct connection *c, const uint8_t *in, size_t length) {
    uint8_t text[COMMAND_SIZE];
    if (length > COMMAND_SIZE - 1 - c->command_length)
        length = COMMAND_SIZE - 1 - c->command_length;
    unmask(c, in, text, length);
    memcpy(c->command + c->command_length, text, length);
    c->command_length += length;
}

/* A message has ended; write to `out` what it asks to be answered with. */
static size_t finish(struct connection *c, uint8_t *out) {
    if (c->action == COMMAND) {
        c->command[c->command_length] = 0;
        c->command_length = 0;
        uint64_t number = strtoull(c->command, NULL, 10);
        if (c->mode == FLOOD)
            c->flood_left += number * c->flood->frame;
        else
            c->sink_left = number;
        return 0;
    }
    if (c->mode != SINK || c->is_control || --c->sink_left > 0)
        return 0;
    memcpy(out, "\x81\x04" "done", 6);
    return 6;
}

/* Turn what was read into what is to be written, in place; give its length.
 *
 * That never runs ahead of the reading: an answer's head is four bytes shorter than the head that it answers, and
 * the slack in front has room for a head and for "done".
 */
static size_t answer(struct connection *c, uint8_t *in, size_t length, uint8_t *start) {
    uint8_t *out = start, *end = in + length;
    while (!c->is_closing || c->left) {
        if (c->left == 0) {
            uint8_t first;
            uint64_t body;
            size_t head = read_head(c, in, (size_t)(end - in), &first, &body);
            if (head == 0)
                break;
            in += head;
            out += begin(c, first, body, out);
        }
        size_t part = (uint64_t)(end - in) < c->left ? (size_t)(end - in) : (size_t)c->left;
        if (c->action == COPY) {
            unmask(c, in, out, part);
            out += part;
        } else if (c->action == COMMAND) {
            note_command(c, in, part);
        }
        in += part;
        c->left -= part;
        if (c->left > 0)
            return (size_t)(out - start);
        if (c->is_last)
            out += finish(c, out);
    }
    c->part_length = c->is_closing ? 0 : (size_t)(end - in);
    memcpy(c->part, in, c->part_length);
    return (size_t)(out - start);
}

/* ------------------------------------------------------------------------------------ HTTP */

static void drop_all(const char *how, struct connection *except) {
    struct linger at_once = {.l_onoff = 1};
    for (struct connection *c = all.next, *next; c != &all; c = next) {
        next = c->next;
        if (c == except || c->mode == REQUEST)
            continue;
        if (strcmp(how, "rst") == 0)
            setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        drop(c);
    }
}

static bool upgrade(struct connection *c, const char *key, size_t key_length) {
    char joined[128], text[64], response[256];
    uint8_t digest[SHA_DIGEST_LENGTH];
    int length = snprintf(joined, sizeof joined, "%.*s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", (int)key_length, key);
    SHA1((uint8_t *)joined, (size_t)length, digest);
    EVP_EncodeBlock((uint8_t *)text, digest, sizeof digest);
    length = snprintf(response, sizeof response,
                      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                      "Sec-WebSocket-Accept: %s\r\n\r\n", text);
    return put(c, (uint8_t *)response, (size_t)length);
}

static bool reply(struct connection *c, const char *status) {
    char text[128];
    int length = snprintf(text, sizeof text, "HTTP/1.1 %s\r\nConnection: close\r\n\r\n%lu", status,
                          (unsigned long)busy);
    c->is_closing = true;
    return put(c, (uint8_t *)text, (size_t)length);
}

static bool route(struct connection *c, const char *path) {
    if (strncmp(path, "/flood/", 7) == 0) {
        c->mode = FLOOD;
        c->flood = find_flood(strtoull(path + 7, NULL, 10));
        return c->flood != NULL;
    }
    c->mode = strcmp(path, "/echo") == 0 ? ECHO : strcmp(path, "/sink") == 0 ? SINK : REQUEST;
    return c->mode != REQUEST;
}

static bool read_request(struct connection *c, const uint8_t *in, size_t length) {
    char path[64];
    if (c->request == NULL)
        c->request = malloc(REQUEST_SIZE);
    if (c->part_length + length >= REQUEST_SIZE)
        return false;
    memcpy(c->request + c->part_length, in, length);
    c->part_length += length;
    c->request[c->part_length] = 0;
    if (strstr(c->request, "\r\n\r\n") == NULL)
        return true;
    c->part_length = 0;
    if (sscanf(c->request, "GET %63s", path) != 1)
        return reply(c, "400 Bad Request");
    if (strncmp(path, "/drop/", 6) == 0) {
        drop_all(path + 6, c);
        return reply(c, "200 OK");
    }
    if (sscanf(path, "/looks/%ld", &looks) == 1)
        return reply(c, "200 OK");
    const char *key = strcasestr(c->request, "\r\nsec-websocket-key:");
    if (key == NULL || !route(c, path))
        return reply(c, "404 Not Found");
    key += strlen("\r\nsec-websocket-key:");
    key += strspn(key, " ");
    bool is_alive = upgrade(c, key, strcspn(key, " \r"));
    free(c->request);
    c->request = NULL;
    return is_alive;
}

/* ------------------------------------------------------------------------------------ connections */

static bool shake_hands(struct connection *c) {
    if (c->is_shaken)
        return true;
    int result = SSL_accept(c->tls);
    c->is_shaken = result == 1;
    return c->is_shaken || SSL_get_error(c->tls, result) == SSL_ERROR_WANT_READ;
}

static bool handle(struct connection *c, uint8_t *in, size_t length) {
    if (c->mode == BYTES)
        return put(c, in, length);
    if (c->mode == REQUEST)
        return read_request(c, in, length);
    in -= c->part_length;
    length += c->part_length;
    memmove(in, c->part, c->part_length);
    c->part_length = 0;
    return put(c, buffer, answer(c, in, length, buffer));
}

/* Do all that can be done now; false if the connection is over. */
static bool go_on(struct connection *c) {
    ERR_clear_error(); /* what another connection left there would be taken for a fault of this one */
    if (!shake_hands(c) || !flush(c))
        return false;
    while (c->is_shaken && c->waiting == NULL) {
        if (c->is_closing)
            return false;
        if (c->flood_left > 0)
            return pour(c);
        ssize_t got = take(c, buffer + SLACK, READ_SIZE);
        if (got <= 0)
            return got == 0;
        if (!handle(c, buffer + SLACK, (size_t)got))
            return false;
        /* What is left in the socket is told of again; what is left inside of OpenSSL is not. */
        if (got < READ_SIZE && c->flood_left == 0 && !c->is_closing)
            break;
    }
    return true;
}

static void serve(struct connection *c) {
    if (!go_on(c))
        drop(c);
    else
        watch(c, c->waiting != NULL || c->flood_left > 0 ? EPOLLOUT : EPOLLIN);
}

static void welcome(enum kind kind) {
    int yes = 1, fd;
    while ((fd = accept4(listeners[kind], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *c = calloc(1, sizeof *c);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        c->fd = fd;
        c->mode = kind == RAW || kind == RAW_TLS ? BYTES : REQUEST;
        c->is_shaken = kind == PLAIN || kind == RAW;
        if (!c->is_shaken) {
            c->tls = SSL_new(tls_context);
            SSL_set_fd(c->tls, fd);
        }
        c->next = all.next;
        c->previous = &all;
        all.next->previous = c;
        all.next = c;
        watch(c, EPOLLIN);
    }
}

/* ------------------------------------------------------------------------------------ the program */

static int listen_here(enum kind kind) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listeners[kind]};
    int fd = listeners[kind] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, 4096) < 0)
        die("listen");
    if (getsockname(fd, (struct sockaddr *)&address, &size) < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
    return ntohs(address.sin_port);
}

static void set_up(const char *certificate, const char *key) {
    struct rlimit limit;
    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    tls_context = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_num_tickets(tls_context, 0);
    SSL_CTX_set_read_ahead(tls_context, 1);
    SSL_CTX_set_default_read_buffer_len(tls_context, READ_SIZE / 2);
    if (SSL_CTX_use_certificate_chain_file(tls_context, certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(tls_context, key, SSL_FILETYPE_PEM) != 1) {
        fprintf(stderr, "certificate or key is unusable: %s, %s\n", certificate, key);
        exit(1);
    }
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &event); /* fails for a file, which never ends by itself */
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* Wait for an event, awake for as many looks as were asked for; NULL if there is none. One event at a time: to end all
 * connections must not leave events behind of those that are gone. */
static struct epoll_event *await_event(void) {
    static struct epoll_event event;
    static long in_vain;
    if (epoll_wait(poller, &event, 1, in_vain < looks ? 0 : -1) < 1) {
        in_vain++;
        return NULL;
    }
    in_vain = 0;
    return &event;
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "usage: %s CERTIFICATE.pem KEY.pem\n", arguments[0]);
        return 2;
    }
    set_up(arguments[1], arguments[2]);
    for (enum kind kind = 0; kind < KINDS; kind++)
        printf("%s\"%s\": %d", kind ? ", " : "{", NAMES[kind], listen_here(kind));
    printf("}\n");
    fflush(stdout);
    for (;;) {
        struct epoll_event *event = await_event();
        if (event == NULL)
            continue;
        uint64_t begun = now();
        int *listener = event->data.ptr;
        if (listener == NULL)
            return 0;
        if (listener >= listeners && listener < listeners + KINDS)
            welcome((enum kind)(listener - listeners));
        else
            serve(event->data.ptr);
        busy += now() - begun;
    }
}
