/* What launcher.c uses of a C library, and nothing else: linked with it where the processor is one of these two.
 *
 * glibc asks the processor at every start what it can do, by CPUID instructions. In a virtual machine each goes to the
 * hypervisor: together 0.3 ms, of a call that has 0.7 (decision 0016). Nothing here depends on the answers.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#undef errno

int main(void);

char **environ;
static int last_error;

int *__errno_location(void)
{
    return &last_error;
}

#if defined(__x86_64__) && defined(__LP64__)
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n");

static long kernel(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    long answer;
    __asm__ volatile("syscall"
                     : "=a"(answer)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return answer;
}
#elif defined(__aarch64__) && defined(__LP64__)
__asm__(".globl _start\n_start:\n\tmov x29, #0\n\tmov x30, #0\n\tmov x0, sp\n\tand sp, x0, #-16\n\tb start\n");

static long kernel(long number, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}
#else
#error "unknown processor: the launcher is linked with the C library"
#endif

/* The answer of a system call as the C library gives it (syscalls(2)). */
static long result(long answer)
{
    if (answer >= 0 || answer < -4095)
        return answer;
    last_error = (int)-answer;
    return -1;
}

#define CALL(name, a, b, c, d) result(kernel(SYS_##name, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0))

__attribute__((used, noreturn)) void start(long *stack)
{
    environ = (char **)(stack + *stack + 2); /* behind the count, the arguments and their null (elf(5), ABI) */
    _exit(main());
}

void _exit(int code)
{
    for (;;)
        CALL(exit_group, code, 0, 0, 0);
}

/* ---- files and sockets ---- */

ssize_t read(int fd, void *into, size_t size)
{
    return CALL(read, fd, into, size, 0);
}

ssize_t write(int fd, const void *data, size_t size)
{
    return CALL(write, fd, data, size, 0);
}

int open(const char *path, int flags, ...) /* never with O_CREAT */
{
    return (int)CALL(openat, AT_FDCWD, path, flags, 0);
}

int close(int fd)
{
    return (int)CALL(close, fd, 0, 0, 0);
}

int fcntl(int fd, int command, ...) /* only F_GETFD */
{
    return (int)CALL(fcntl, fd, command, 0, 0);
}

ssize_t readlink(const char *path, char *into, size_t size)
{
    return CALL(readlinkat, AT_FDCWD, path, into, size);
}

int execv(const char *path, char *const argv[])
{
    return (int)CALL(execve, path, argv, environ, 0);
}

int socket(int family, int type, int protocol)
{
    return (int)CALL(socket, family, type, protocol, 0);
}

int connect(int fd, __CONST_SOCKADDR_ARG address, socklen_t size)
{
    return (int)CALL(connect, fd, address.__sockaddr__, size, 0);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    return CALL(sendmsg, fd, message, flags, 0);
}

ssize_t recv(int fd, void *into, size_t size, int flags)
{
    return result(kernel(SYS_recvfrom, fd, (long)into, (long)size, flags, 0, 0));
}

int poll(struct pollfd *waiting, nfds_t number, int ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    return (int)CALL(ppoll, waiting, number, ms < 0 ? NULL : &left, NULL);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    return (int)CALL(clock_gettime, clock, now, 0, 0);
}

__sighandler_t signal(int number, __sighandler_t handler) /* only SIG_IGN, which needs no way back */
{
    struct { __sighandler_t handler; unsigned long flags; void *restorer; uint64_t mask; } action = {.handler = handler};
    return CALL(rt_sigaction, number, &action, NULL, sizeof action.mask) ? SIG_ERR : SIG_DFL;
}

void *malloc(size_t size)
{
    long answer = kernel(SYS_mmap, 0, (long)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return result(answer) == -1 ? NULL : (void *)answer;
}

void free(void *memory) /* once, just before the end */
{
    (void)memory;
}

/* ---- bytes and text. The empty asm keeps the compiler from taking a loop for a call of the very function it is in ---- */

#define STEP __asm__ volatile("" ::: "memory")

void *memcpy(void *restrict into, const void *restrict from, size_t size)
{
    char *to = into;
    const char *data = from;
    for (; size >= sizeof(uint64_t); size -= sizeof(uint64_t), to += sizeof(uint64_t), data += sizeof(uint64_t)) {
        uint64_t word;
        __builtin_memcpy(&word, data, sizeof word);
        __builtin_memcpy(to, &word, sizeof word);
        STEP;
    }
    for (; size; size--) {
        *to++ = *data++;
        STEP;
    }
    return into;
}

void *memset(void *into, int byte, size_t size)
{
    for (char *to = into; size; size--) {
        *to++ = (char)byte;
        STEP;
    }
    return into;
}

size_t strlen(const char *text)
{
    const char *end = text;
    for (; *end; end++)
        STEP;
    return (size_t)(end - text);
}

char *strcpy(char *restrict into, const char *restrict text)
{
    return memcpy(into, text, strlen(text) + 1);
}

int strcmp(const char *one, const char *other)
{
    for (; *one && *one == *other; one++, other++)
        STEP;
    return (unsigned char)*one - (unsigned char)*other;
}

char *strrchr(const char *text, int byte)
{
    char *found = NULL;
    for (; *text; text++)
        if (*text == (char)byte)
            found = (char *)text;
    return found;
}

char *getenv(const char *name)
{
    size_t size = strlen(name);
    for (char **string = environ; *string; string++) {
        size_t same = 0;
        while (same < size && (*string)[same] == name[same])
            same++;
        if (same == size && (*string)[size] == '=')
            return *string + size + 1;
    }
    return NULL;
}

static size_t put_number(char *into, int number)
{
    char digits[12];
    size_t size = 0, at = 0;
    unsigned left = number < 0 ? -(unsigned)number : (unsigned)number;
    do
        digits[size++] = (char)('0' + left % 10);
    while (left /= 10);
    if (number < 0)
        into[at++] = '-';
    while (size)
        into[at++] = digits[--size];
    return at;
}

int dprintf(int fd, const char *restrict format, ...) /* %d and %s; what is longer than 2 KiB is cut off */
{
    char text[2048];
    size_t size = 0;
    va_list given;
    va_start(given, format);
    for (; *format && size < sizeof text - 12; format++) {
        if (*format != '%') {
            text[size++] = *format;
        } else if (*++format == 'd') {
            size += put_number(text + size, va_arg(given, int));
        } else {
            const char *string = va_arg(given, const char *);
            size_t room = sizeof text - 12 - size, length = strlen(string);
            memcpy(text + size, string, length < room ? length : room);
            size += length < room ? length : room;
        }
    }
    va_end(given);
    return (int)write(fd, text, size);
}

/* In glibc's words, those that these system calls give. */
char *strerror(int number)
{
    static const struct { int number; const char *text; } known[] = {
        {EPERM, "Operation not permitted"}, {ENOENT, "No such file or directory"}, {EINTR, "Interrupted system call"},
        {EIO, "Input/output error"}, {E2BIG, "Argument list too long"}, {ENOEXEC, "Exec format error"},
        {EBADF, "Bad file descriptor"}, {ENOMEM, "Cannot allocate memory"}, {EACCES, "Permission denied"},
        {ENOTDIR, "Not a directory"}, {EISDIR, "Is a directory"}, {EINVAL, "Invalid argument"},
        {ENFILE, "Too many open files in system"}, {EMFILE, "Too many open files"}, {ETXTBSY, "Text file busy"},
        {EPIPE, "Broken pipe"}, {ELOOP, "Too many levels of symbolic links"}, {ENAMETOOLONG, "File name too long"},
        {ECONNRESET, "Connection reset by peer"}, {ENOBUFS, "No buffer space available"},
        {ENOTCONN, "Transport endpoint is not connected"}, {ETOOMANYREFS, "Too many references: cannot splice"},
    };
    static char other[24] = "error ";
    for (size_t at = 0; at < sizeof known / sizeof *known; at++)
        if (known[at].number == number)
            return (char *)known[at].text;
    other[6 + put_number(other + 6, number)] = '\0';
    return other;
}
