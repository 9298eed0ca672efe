/* What the kernel itself takes for the links, addresses and routes of an ADD, and for its DEL: the same requests as the
 * bridge plugin's, from a program that does nothing else. Bridge, namespaces and sockets are there before the clock
 * starts, but for the socket inside the container, which every ADD has to open.
 *
 * rtnl_floor EXISTING N: N containers next to so many; prints the medians in microseconds, "ADD DEL".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 1020, BRIDGE = 900000, FIRST_PORT = 500000, FLAGS = NLM_F_REQUEST | NLM_F_ACK };
enum { SILENCE_S = 15 }; /* each container solicits routers for 12 s, and the bridge copies that to every port */

static char batch[16384];
static size_t used;
static int messages;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void *put(const void *data, size_t size) {
    void *at = batch + used;
    memcpy(at, data, size);
    used += NLMSG_ALIGN(size);
    return at;
}

static struct nlmsghdr *message(int type, int flags, const void *body, size_t size) {
    struct nlmsghdr head = {.nlmsg_type = type, .nlmsg_flags = FLAGS | flags};
    struct nlmsghdr *at = put(&head, sizeof head);
    put(body, size);
    messages++;
    return at;
}

static struct rtattr *attribute(int type, const void *data, size_t size) {
    struct rtattr head = {.rta_len = RTA_LENGTH(size), .rta_type = type};
    struct rtattr *at = put(&head, sizeof head);
    if (size) put(data, size);
    return at;
}

static void end_attribute(struct rtattr *at) { at->rta_len = batch + used - (char *)at; }
static void end_message(struct nlmsghdr *at) { at->nlmsg_len = batch + used - (char *)at; }

static void text(int type, const char *value) { attribute(type, value, strlen(value) + 1); }

static void set_up(int index) {
    struct ifinfomsg link = {.ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    end_message(message(RTM_NEWLINK, 0, &link, sizeof link));
}

/* Send what was put together and read every acknowledgement. */
static void request(int sock, const char *what) {
    static char answer[65536];
    if (send(sock, batch, used, 0) < 0) die(what);
    for (used = 0; messages;) {
        int size = recv(sock, answer, sizeof answer, 0);
        for (struct nlmsghdr *at = (void *)answer; NLMSG_OK(at, (unsigned)size); at = NLMSG_NEXT(at, size)) {
            if (at->nlmsg_type != NLMSG_ERROR) continue;
            errno = -((struct nlmsgerr *)NLMSG_DATA(at))->error;
            if (errno) die(what);
            messages--;
        }
    }
}

static int open_socket(void) {
    int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), on = 1;
    if (sock < 0 || setsockopt(sock, 270, 10, &on, sizeof on)) die("socket"); /* SOL_NETLINK, NETLINK_CAP_ACK */
    return sock;
}

static void make_bridge(int sock) {
    struct ifinfomsg link = {.ifi_index = BRIDGE, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    struct nlmsghdr *at = message(RTM_NEWLINK, NLM_F_EXCL | NLM_F_CREATE, &link, sizeof link);
    text(IFLA_IFNAME, "floor0");
    struct rtattr *info = attribute(IFLA_LINKINFO, 0, 0);
    text(IFLA_INFO_KIND, "bridge");
    end_attribute(info);
    end_message(at);
    request(sock, "bridge");
}

static void make_pair(int sock, int number, int netns) {
    char name[IFNAMSIZ];
    int bridge = BRIDGE;
    struct ifinfomsg link = {.ifi_index = FIRST_PORT + number}, peer = {.ifi_index = 2};
    struct nlmsghdr *at = message(RTM_NEWLINK, NLM_F_EXCL | NLM_F_CREATE, &link, sizeof link);
    snprintf(name, sizeof name, "floor%dp", number);
    text(IFLA_IFNAME, name);
    attribute(IFLA_MASTER, &bridge, sizeof bridge);
    struct rtattr *info = attribute(IFLA_LINKINFO, 0, 0);
    text(IFLA_INFO_KIND, "veth");
    struct rtattr *data = attribute(IFLA_INFO_DATA, 0, 0), *other = attribute(VETH_INFO_PEER, 0, 0);
    put(&peer, sizeof peer);
    text(IFLA_IFNAME, "eth0");
    attribute(IFLA_NET_NS_FD, &netns, sizeof netns);
    end_attribute(other);
    end_attribute(data);
    end_attribute(info);
    end_message(at);
    set_up(FIRST_PORT + number);
    request(sock, "veth pair");
}

static void furnish(int netns, int home, int number) {
    unsigned address = htonl(0x0a090100 + number), gateway = htonl(0x0a090001);
    struct ifaddrmsg own = {.ifa_family = AF_INET, .ifa_prefixlen = 16, .ifa_index = 2};
    struct rtmsg way = {.rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_STATIC,
                        .rtm_type = RTN_UNICAST};
    if (setns(netns, CLONE_NEWNET)) die("setns");
    int inside = open_socket();
    if (setns(home, CLONE_NEWNET)) die("setns");
    struct nlmsghdr *at = message(RTM_NEWADDR, NLM_F_EXCL | NLM_F_CREATE, &own, sizeof own);
    attribute(IFA_LOCAL, &address, sizeof address);
    attribute(IFA_ADDRESS, &address, sizeof address);
    end_message(at);
    set_up(2);
    at = message(RTM_NEWROUTE, NLM_F_EXCL | NLM_F_CREATE, &way, sizeof way);
    attribute(RTA_GATEWAY, &gateway, sizeof gateway);
    end_message(at);
    request(inside, "address and route");
    close(inside);
}

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1e6 + at.tv_nsec / 1e3;
}

static int ascending(const void *one, const void *other) {
    double gap = *(const double *)one - *(const double *)other;
    return (gap > 0) - (gap < 0);
}

static double median(double *values, int count) {
    qsort(values, count, sizeof *values, ascending);
    return values[count / 2];
}

int main(int argc, char **argv) {
    int existing = argc == 3 ? atoi(argv[1]) : -1, timed = argc == 3 ? atoi(argv[2]) : 0, count = existing + timed;
    int netns[MOST], home = open("/proc/thread-self/ns/net", O_RDONLY);
    double add[MOST], del[MOST];
    if (existing < 0 || timed < 1 || count > MOST)
        return fprintf(stderr, "usage: rtnl_floor EXISTING N, together at most %d\n", MOST), 2;
    if (unshare(CLONE_NEWNET)) die("unshare"); /* the machine's own namespace is left alone */
    close(home);
    home = open("/proc/thread-self/ns/net", O_RDONLY);
    int sock = open_socket();
    make_bridge(sock);
    for (int i = 0; i < count; i++) {
        if (unshare(CLONE_NEWNET)) die("unshare");
        netns[i] = open("/proc/thread-self/ns/net", O_RDONLY);
        if (setns(home, CLONE_NEWNET)) die("setns");
    }
    for (int i = 0; i < count; i++) {
        if (i && i == existing) sleep(SILENCE_S);
        double from = now();
        make_pair(sock, i, netns[i]);
        furnish(netns[i], home, i);
        add[i] = now() - from;
    }
    for (int i = existing; i < count; i++) {
        double from = now();
        struct ifinfomsg link = {.ifi_index = FIRST_PORT + i};
        end_message(message(RTM_DELLINK, 0, &link, sizeof link));
        request(sock, "deletion");
        del[i] = now() - from;
    }
    printf("%.1f %.1f\n", median(add + existing, timed), median(del + existing, timed));
    return 0;
}
