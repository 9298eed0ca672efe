/* The executable behind every plugin name: hands the call to the agent and relays its answer.
 *
 * Where no agent listens it becomes pycni-standalone, the Python file beside it, with stdin and environment as they
 * came. Once an agent was reached it may have acted, so every later failure is CNI error 11 ("try again later") and
 * never a second attempt. client.py does the same where there is no compiler; docs/launcher.md has the protocol.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_SOCKET "/run/pycni/agent.sock"
#define STANDALONE "pycni-standalone"
enum { BUFFER = 1 << 16, ANSWER_LIMIT = 32 << 20, TIMEOUT_S = 60, TIMEOUT_LIMIT_S = 3600 };
enum { IO = 5, TRY_AGAIN = 11 }; /* of the specification's error codes */

__attribute__((used)) static const char mark[] = "# pycni launcher"; /* `pycni uninstall` looks for it */

static char unsent[BUFFER], chunk[BUFFER];
static size_t used; /* of unsent */
static int agent = -1, netns = -1;
static int refused; /* the agent has closed before the request's end: send no more of it, but read its answer */
static int64_t timeout_ms = TIMEOUT_S * 1000, deadline_ms;

/* Laid out like any other error of pycni. The texts are ours and strerror's: nothing in them needs escaping. */
static _Noreturn void fail(int code, const char *msg, const char *why)
{
    dprintf(STDOUT_FILENO, "{\n    \"code\": %d,\n    \"msg\": \"%s\",\n    \"details\": \"%s\"\n}", code, msg, why);
    _exit(1);
}

static _Noreturn void lost(const char *why)
{
    fail(TRY_AGAIN, "the pycni agent took this call and gave no complete answer: repeat it, an ADD after a DEL", why);
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* After a failed read or write: 1 once another try is worth it, 0 if none is. *until* is a deadline, -1 none. */
static int wait_for(int fd, short events, int64_t until)
{
    struct pollfd one = {.fd = fd, .events = events};
    if (errno != EAGAIN && errno != EINTR)
        return 0;
    int64_t left = until < 0 ? -1 : until - now_ms();
    if (poll(&one, 1, until < 0 || left > 0 ? (int)left : 0) == 0)
        lost("it did not answer in time");
    return 1;
}

static void flush(void)
{
    union { struct cmsghdr header; char space[CMSG_SPACE(sizeof(int))]; } control = {0};
    control.header.cmsg_len = CMSG_LEN(sizeof netns);
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    memcpy(CMSG_DATA(&control.header), &netns, sizeof netns);
    for (size_t sent = 0; sent < used && !refused;) {
        struct iovec piece = {.iov_base = unsent + sent, .iov_len = used - sent};
        struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
        if (netns >= 0) { /* with the first bytes: the path may be gone before the agent opens it */
            message.msg_control = &control;
            message.msg_controllen = sizeof control;
        }
        ssize_t done = sendmsg(agent, &message, 0);
        if (done >= 0) {
            sent += (size_t)done;
            if (netns >= 0)
                close(netns);
            netns = -1;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            refused = 1;
        } else if (!wait_for(agent, POLLOUT, deadline_ms)) {
            lost(strerror(errno));
        }
    }
    used = 0;
}

static void put(const char *data, size_t size)
{
    while (size) {
        size_t part = size < BUFFER - used ? size : BUFFER - used;
        memcpy(unsent + used, data, part);
        used += part;
        data += part;
        size -= part;
        if (used == BUFFER)
            flush();
    }
}

static void put_record(const char *data, size_t size) /* size 0 ends a list of them */
{
    uint32_t prefix = htole32((uint32_t)size);
    put((char *)&prefix, sizeof prefix);
    put(data, size);
}

/* stdin has no deadline, because a plugin would wait for it as well; the agent's starts when it has come. */
static void put_stdin(void)
{
    ssize_t size = -1;
    while (size && !refused) {
        size = read(STDIN_FILENO, chunk, sizeof chunk);
        if (size < 0 && !wait_for(STDIN_FILENO, POLLIN, -1))
            fail(IO, "the network config cannot be read from stdin", strerror(errno));
        deadline_ms = now_ms() + timeout_ms;
        if (size > 0)
            put_record(chunk, (size_t)size);
    }
}

static void receive(char *into, size_t size)
{
    while (size) {
        ssize_t got = recv(agent, into, size, 0);
        if (got == 0)
            lost("it closed the connection");
        if (got < 0 && !wait_for(agent, POLLIN, deadline_ms))
            lost(strerror(errno));
        into += got < 0 ? 0 : got;
        size -= got < 0 ? 0 : (size_t)got;
    }
}

static int write_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t done = write(fd, data, size);
        if (done < 0 && !wait_for(fd, POLLOUT, -1))
            return 0;
        data += done < 0 ? 0 : done;
        size -= done < 0 ? 0 : (size_t)done;
    }
    return 1;
}

/* The whole answer is here before any of it is written: a half one and an error after it would be no JSON document. */
static int relay_answer(void)
{
    uint32_t head[3];
    receive((char *)head, sizeof head);
    uint32_t code = le32toh(head[0]), out_size = le32toh(head[1]), err_size = le32toh(head[2]);
    if (code > 255 || out_size > ANSWER_LIMIT || err_size > ANSWER_LIMIT - out_size)
        lost("it is not the answer of a pycni agent");
    char *text = malloc((size_t)out_size + err_size + 1);
    if (!text)
        lost(strerror(errno));
    receive(text, (size_t)out_size + err_size);
    write_all(STDERR_FILENO, text + out_size, err_size);
    int heard = write_all(STDOUT_FILENO, text, out_size);
    free(text);
    return heard || code ? (int)code : 1;
}

/* Non-blocking, because a connect() to a stopped agent with a full backlog would wait for ever. */
static int connect_agent(void)
{
    const char *path = getenv("PYCNI_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    path = path ? path : DEFAULT_SOCKET;
    if (!*path || strlen(path) >= sizeof address.sun_path) /* an empty one would be an abstract address */
        return -1;
    strcpy(address.sun_path, path);
    agent = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return agent < 0 ? -1 : connect(agent, (struct sockaddr *)&address, sizeof address);
}

/* Our own path, by which the plugin is known. argv[0] may be missing, empty or relative; the kernel knows better. */
static void find_executable(char path[PATH_MAX])
{
    static const char gone[] = " (deleted)"; /* an install has just renewed the file under that name */
    ssize_t size = readlink("/proc/self/exe", path, PATH_MAX - 1);
    if (size <= 0 || size == PATH_MAX - 1 || *path != '/')
        fail(TRY_AGAIN, "/proc/self/exe does not tell the plugin's own path", size < 0 ? strerror(errno) : "too long");
    path[size] = '\0';
    size -= (ssize_t)strlen(gone);
    if (size > 0 && !strcmp(path + size, gone))
        path[size] = '\0';
}

static _Noreturn void become_standalone(char *executable)
{
    char path[PATH_MAX + sizeof STANDALONE];
    strcpy(path, executable);
    strcpy(strrchr(path, '/') + 1, STANDALONE);
    execv(path, (char *[]){STANDALONE, executable, NULL}); /* a #! line drops argv[0], hence the second */
    const char *why = strerror(errno);
    fail(TRY_AGAIN, "no pycni agent, and " STANDALONE " beside the plugin cannot be run: try `pycni install`", why);
}

static int64_t number(const char *digits) /* 0 for what is none, or above TIMEOUT_LIMIT_S */
{
    int64_t sum = 0;
    for (; *digits; digits++) {
        if (*digits < '0' || *digits > '9' || sum > TIMEOUT_LIMIT_S)
            return 0;
        sum = 10 * sum + (*digits - '0');
    }
    return sum;
}

int main(void)
{
    char executable[PATH_MAX];
    for (int fd = 0; fd <= STDERR_FILENO; fd++) /* else the socket, or a database later, would become stdout */
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) != fd)
            fail(TRY_AGAIN, "a standard descriptor is closed and /dev/null cannot be opened", strerror(errno));
    find_executable(executable);
    if (connect_agent() < 0)
        become_standalone(executable);
    signal(SIGPIPE, SIG_IGN); /* a caller that stopped listening gets exit code 1 like from any plugin */

    const char *timeout = getenv("PYCNI_TIMEOUT"), *path = getenv("CNI_NETNS"), *command = getenv("CNI_COMMAND");
    int64_t seconds = timeout ? number(timeout) : 0;
    if (seconds >= 1 && seconds <= TIMEOUT_LIMIT_S)
        timeout_ms = seconds * 1000;
    deadline_ms = now_ms() + timeout_ms;
    if (path && *path) /* one that cannot be opened is the agent's to report; O_NONBLOCK: a FIFO would be waited for */
        netns = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    put("PYCNI\x01\n", 8); /* its NUL is the eighth */
    put_record(executable, strlen(executable));
    for (char **string = environ; string && *string; string++)
        if (**string) /* an empty string, which execve allows, would end the list */
            put_record(*string, strlen(*string));
    put_record("", 0);
    if (command && *command) /* else a person asks what this is, and stdin is their terminal */
        put_stdin();
    put_record("", 0);
    flush();
    return relay_answer();
}
