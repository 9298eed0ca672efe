/* Load for bench/proxy.py: a server that answers, and clients that measure. Python would be the slowest part.
 *
 *   proxy_load server ADDRESS PORT
 *   proxy_load upload|download|connect|request|datagram ADDRESS PORT SECONDS CLIENTS
 *
 * TCP: a connection's first byte says what it is for: 'u' upload (read to the end), 'd' download (write until it is
 * closed), 'e' echo. UDP: every datagram comes back. A client prints one line:
 *   COUNT BYTES SECONDS P50_US P99_US
 * upload, download: CLIENTS streams; connect: connections with a request of 64 bytes on each, CLIENTS at a time;
 * request: the same over CLIENTS connections that stay; datagram: CLIENTS datagrams of 64 bytes under way, of one socket.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 128 * 1024, MESSAGE = 64, MOST_FDS = 65536, EVENTS = 256, BATCH = 64, SAMPLES = 1 << 22 };
#define LOST_NS 200000000ull /* a datagram that has not come back by then is replaced */

static char chunk[CHUNK];
static char kind[MOST_FDS];
static uint64_t since[MOST_FDS];
static uint32_t *samples;
static uint64_t count, bytes;
static struct sockaddr_storage peer;
static socklen_t peer_length;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void parse(const char *address, const char *port) {
    struct sockaddr_in *v4 = (void *)&peer;
    struct sockaddr_in6 *v6 = (void *)&peer;
    if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET, v4->sin_port = htons(atoi(port)), peer_length = sizeof *v4;
    } else if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6, v6->sin6_port = htons(atoi(port)), peer_length = sizeof *v6;
    } else {
        fprintf(stderr, "%s: no address\n", address);
        exit(2);
    }
}

static int opened(int type) {
    int fd = socket(peer.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0 || fd >= MOST_FDS) die("socket");
    if (type == SOCK_STREAM) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static void watch(int epoll, int fd, uint32_t events, int what) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll, what, fd, &event)) die("epoll_ctl");
}

static void sample(uint64_t ns) {
    samples[count++ % SAMPLES] = ns > UINT32_MAX ? UINT32_MAX : ns;
}

/* -- server ------------------------------------------------------------------------------------------------------- */

static void echo_datagrams(int fd) {
    static struct mmsghdr heads[BATCH];
    static struct iovec vectors[BATCH];
    static struct sockaddr_storage names[BATCH];
    static char room[BATCH][2048];
    for (int i = 0; i < BATCH; i++) {
        vectors[i] = (struct iovec){room[i], sizeof room[i]};
        heads[i].msg_hdr = (struct msghdr){.msg_name = &names[i], .msg_namelen = sizeof names[i], .msg_iov = &vectors[i], .msg_iovlen = 1};
    }
    int got = recvmmsg(fd, heads, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < got; i++) vectors[i].iov_len = heads[i].msg_len;
    if (got > 0) sendmmsg(fd, heads, got, MSG_DONTWAIT);
}

static void serve_stream(int epoll, int fd) {
    if (!kind[fd]) {
        ssize_t got = recv(fd, &kind[fd], 1, MSG_DONTWAIT);
        if (got < 0 && errno == EAGAIN) return;
        if (got != 1) {
            close(fd);
            return;
        }
        if (kind[fd] == 'd') watch(epoll, fd, EPOLLOUT, EPOLL_CTL_MOD);
    }
    ssize_t done = kind[fd] == 'd' ? send(fd, chunk, CHUNK, MSG_DONTWAIT | MSG_NOSIGNAL) : recv(fd, chunk, CHUNK, MSG_DONTWAIT);
    if (done > 0 && kind[fd] == 'e') done = send(fd, chunk, done, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (done == 0 || (done < 0 && errno != EAGAIN)) close(fd);
}

static void server(void) {
    int epoll = epoll_create1(EPOLL_CLOEXEC), one = 1;
    int stream = opened(SOCK_STREAM), datagram = opened(SOCK_DGRAM), room = 4 << 20;
    setsockopt(stream, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(datagram, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    if (bind(stream, (void *)&peer, peer_length) || listen(stream, 4096)) die("tcp");
    if (bind(datagram, (void *)&peer, peer_length)) die("udp");
    watch(epoll, stream, EPOLLIN, EPOLL_CTL_ADD);
    watch(epoll, datagram, EPOLLIN, EPOLL_CTL_ADD);
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS];
        int got = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < got; i++) {
            int fd = events[i].data.fd;
            if (fd == datagram) {
                echo_datagrams(fd);
            } else if (fd == stream) {
                int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (client < 0 || client >= MOST_FDS) continue;
                setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                kind[client] = 0;
                watch(epoll, client, EPOLLIN, EPOLL_CTL_ADD);
            } else {
                serve_stream(epoll, fd);
            }
        }
    }
}

/* -- clients ------------------------------------------------------------------------------------------------------ */

static int connected(int epoll, char what) {
    int fd = opened(SOCK_STREAM);
    since[fd] = now_ns();
    kind[fd] = what;
    if (connect(fd, (void *)&peer, peer_length) && errno != EINPROGRESS) die("connect");
    watch(epoll, fd, EPOLLOUT, EPOLL_CTL_ADD);
    return fd;
}

/* A message of which the first byte of a connection's life is the mode: its answer is one byte shorter. */
static void ask(int fd, size_t length) {
    char message[MESSAGE] = "e";
    if (send(fd, message, length, MSG_NOSIGNAL) != (ssize_t)length) die("send");
}

static void talk(int epoll, struct epoll_event event, int again, uint64_t end) {
    int fd = event.data.fd;
    if (kind[fd] == 'c') { /* it is connected now */
        kind[fd] = 'e';
        if (again) since[fd] = now_ns();
        ask(fd, MESSAGE);
        watch(epoll, fd, EPOLLIN, EPOLL_CTL_MOD);
        return;
    }
    char answer[MESSAGE];
    ssize_t got = recv(fd, answer, MESSAGE, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) die("recv");
    uint64_t now = now_ns();
    sample(now - since[fd]);
    if (again) {
        since[fd] = now;
        ask(fd, MESSAGE);
    } else {
        close(fd);
        if (now < end) connected(epoll, 'c');
    }
}

static void stream(struct epoll_event event, int epoll) {
    int fd = event.data.fd;
    if (kind[fd] == 'c') {
        kind[fd] = 's';
        if (send(fd, chunk, 1, MSG_NOSIGNAL) != 1) die("send");
        if (chunk[0] == 'd') watch(epoll, fd, EPOLLIN, EPOLL_CTL_MOD);
        return;
    }
    ssize_t done = chunk[0] == 'd' ? recv(fd, chunk + 1, CHUNK - 1, MSG_DONTWAIT) : send(fd, chunk + 1, CHUNK - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (done > 0) bytes += done, count++;
    if (done == 0 || (done < 0 && errno != EAGAIN)) die("stream");
}

static void datagrams(uint64_t end, int window) {
    int fd = opened(SOCK_DGRAM);
    if (connect(fd, (void *)&peer, peer_length)) die("connect");
    uint64_t sent[1024] = {0}, now;
    for (int i = 0; i < window && i < 1024; i++) sent[i] = 1; /* long ago */
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    watch(epoll, fd, EPOLLIN, EPOLL_CTL_ADD);
    while ((now = now_ns()) < end) {
        for (int i = 0; i < window; i++) {
            if (now - sent[i] < LOST_NS) continue;
            uint64_t message[MESSAGE / 8] = {i, sent[i] = now};
            if (send(fd, message, MESSAGE, MSG_DONTWAIT) < 0 && errno != EAGAIN && errno != ECONNREFUSED) die("send");
        }
        struct epoll_event event;
        epoll_wait(epoll, &event, 1, 50);
        uint64_t answer[MESSAGE / 8];
        while (recv(fd, answer, MESSAGE, MSG_DONTWAIT) == MESSAGE && answer[0] < (uint64_t)window) {
            if (answer[1] != sent[answer[0]]) continue; /* it was late, and its place is another's */
            now = now_ns();
            sample(now - answer[1]);
            answer[1] = sent[answer[0]] = now;
            if (send(fd, answer, MESSAGE, MSG_DONTWAIT) < 0 && errno != EAGAIN) die("send");
        }
    }
}

static void streams_and_requests(const char *mode, uint64_t end, int clients) {
    int epoll = epoll_create1(EPOLL_CLOEXEC), bulk = *mode == 'u' || *mode == 'd', again = *mode == 'r';
    chunk[0] = *mode;
    for (int i = 0; i < clients; i++) connected(epoll, 'c');
    while (now_ns() < end) {
        struct epoll_event events[EVENTS];
        int got = epoll_wait(epoll, events, EVENTS, 50);
        for (int i = 0; i < got; i++) {
            if (bulk) stream(events[i], epoll);
            else talk(epoll, events[i], again, end);
        }
    }
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
    if (argc < 4 || (strcmp(argv[1], "server") && argc != 6)) return 2;
    parse(argv[2], argv[3]);
    if (!strcmp(argv[1], "server")) server();
    samples = malloc(SAMPLES * sizeof *samples);
    uint64_t start = now_ns(), end = start + (uint64_t)(atof(argv[4]) * 1e9);
    if (!strcmp(argv[1], "datagram")) datagrams(end, atoi(argv[5]));
    else streams_and_requests(argv[1], end, atoi(argv[5]));
    double seconds = (now_ns() - start) / 1e9;
    uint64_t kept = count < SAMPLES ? count : SAMPLES;
    if (bytes) kept = 0; /* of a stream, nothing was timed */
    qsort(samples, kept, sizeof *samples, by_size);
    double p50 = kept ? samples[kept / 2] / 1e3 : 0, p99 = kept ? samples[kept * 99 / 100] / 1e3 : 0;
    printf("%llu %llu %.6f %.1f %.1f\n", (unsigned long long)count, (unsigned long long)bytes, seconds, p50, p99);
    return 0;
}
