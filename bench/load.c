/*
 * The load generator: one thread, epoll, and as little work a message as counting it takes, so that it is not what is measured.
 *
 *   load PORT WORK [name=value …]
 *
 * WORK is fanout, echo, connect, idle, beats, slow, subscribe or recover. It prints READY when its connections are open, WARM when a first part is
 * done, and DONE with a line of JSON; before each part it waits for a line on its standard input, so that the runner reads the server's CPU between
 * them.
 *
 *   clients=N    connections                        window=N   publications or handshakes under way
 *   count=N      publications, requests, handshakes or pings of the measured part; a fifth of it comes first, to warm up
 *   expect=N     recipients of a publication (default: clients)
 *   few=N        the first N connections have the role "few", the others "many"
 *   protocol=P   the subprotocol offered            socketio=1 speaks Engine.IO 4 and Socket.IO 5
 *   path=P       the request's path                 say=TYPE   the type of the publisher's messages
 *   join=C       each subscribes to this channel    uids=1     each with a uid of its own
 *   epoch=E      of its history, which is recovered from the beginning, again and again
 *   polls=1      looks again and again in place of sleeping until something comes
 *   turns=N      the measured part N times: after each DONE it waits for a line. A fifth of all of them comes first
 *   origin=PORT  another node, to which the publisher connects: one more connection, of which nothing is counted
 *   stay=N       so many handshakes stay open, and for each one more the oldest is reset (default: each is reset at once)
 *   page=ORIGIN  the Origin header of each
 *
 * Every connection checks that it receives each publication once and in order. A frame that holds several messages counts as so many.
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
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum { CHUNK = 1 << 20, MAX_WINDOW = 1 << 16, PORTS_PER_ADDRESS = 20000 };

enum state { UPGRADING, JOINING, OPEN, DEAF };

struct client {
  int fd;
  enum state state;
  int64_t seq; /* Of the last publication, or the request under way. */
  int64_t sent_at;
  unsigned char *rest; /* What came of a frame that is not complete. */
  size_t rest_length;
};

static int port, origin = 0, clients = 1000, window = 1, few = 0, expect = 0, socketio = 0, uids = 0, turns = 1, polls = 0, stay = 0;
static int64_t count = 1000;
static const char *work = "fanout", *protocol = "", *path = "/websocket", *type = "say", *channel = "", *epoch_name = "", *page = "";
static struct client *all, *publisher;
/* Of connect: those without a connection, and the open ones, the oldest first. */
static struct client **vacant, **staying;
static int vacant_count, staying_first, staying_count;
static int epoll;
static unsigned char chunk[CHUNK + (1 << 16)];
static int64_t faults, delivered, open_count, closed_count;

/* Publications under way, by their number modulo MAX_WINDOW. */
static int64_t sent_at[MAX_WINDOW];
static int left[MAX_WINDOW];
static int64_t next_seq, completed, last_seq;

/* Latencies in µs: 64 buckets for each power of two. */
static int64_t buckets[64 * 40];

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void record(int64_t ns) {
  uint64_t us = ns / 1000;
  int shift = us < 64 ? 0 : 63 - __builtin_clzll(us) - 5;
  buckets[shift * 64 + (us >> shift)]++;
}

static double percentile(double part) {
  int64_t total = 0, seen = 0;
  for (size_t i = 0; i < sizeof buckets / sizeof *buckets; i++) total += buckets[i];
  for (size_t i = 0; i < sizeof buckets / sizeof *buckets; i++) {
    seen += buckets[i];
    if (total > 0 && seen >= part * total) return (double)((i % 64) << (i / 64)) / 1000;
  }
  return 0;
}

static void die(const char *what) {
  fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
  exit(1);
}

/* A text frame from a client: the mask is there, as RFC 6455 §5.1 wants it, and changes nothing, being zero. */
static size_t frame(unsigned char *out, const char *text) {
  size_t length = strlen(text), header = 2;
  out[0] = 0x81;
  if (length < 126) out[1] = 0x80 | length;
  else {
    out[1] = 0x80 | 126;
    out[2] = length >> 8;
    out[3] = length;
    header = 4;
  }
  memset(out + header, 0, 4);
  memcpy(out + header + 4, text, length);
  return header + 4 + length;
}

static void put(struct client *c, const void *data, size_t length) {
  /* What is sent is small, and the server reads it: a full buffer would be a fault of the bench. */
  if (send(c->fd, data, length, MSG_NOSIGNAL) != (ssize_t)length) faults++;
}

static void say(struct client *c, const char *text) {
  unsigned char out[512];
  put(c, out, frame(out, text));
}

static int is_elsewhere(const struct client *c) {
  return origin && c == publisher;
}

static int port_of(const struct client *c) {
  return is_elsewhere(c) ? origin : port;
}

static void dial(struct client *c, int index) {
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (c->fd < 0) die("socket");
  int one = 1;
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (!strcmp(work, "connect")) {
    /* Reset at the end, or TIME_WAIT would use the ports up. */
    struct linger linger = {1, 0};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
  }
  /* One source address has 28,000 ports. */
  setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
  struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + index / PORTS_PER_ADDRESS)};
  if (bind(c->fd, (void *)&from, sizeof from) < 0) die("bind");
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port_of(c)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (connect(c->fd, (void *)&to, sizeof to) < 0 && errno != EINPROGRESS) die("connect");
  c->state = UPGRADING;
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) < 0) die("epoll_ctl");
}

static void upgrade(struct client *c) {
  char request[1024];
  int index = c - all;
  const char *token = !strcmp(work, "slow") && index == 0 ? "slow" : index < few ? "few" : "many";
  int length = snprintf(request, sizeof request,
    "GET %s%caccess_token=u%d:%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%s%s%s%s%s%s\r\n",
    path, strchr(path, '?') ? '&' : '?', index, token, port_of(c),
    *page ? "Origin: " : "", page, *page ? "\r\n" : "",
    *protocol ? "Sec-WebSocket-Protocol: " : "", protocol, *protocol ? "\r\n" : "");
  put(c, request, length);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
  epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
}

/* Asks for the channel, in place of what it had of it. */
static void join(struct client *c) {
  char text[256];
  int index = c - all, length = snprintf(text, sizeof text, "{\"type\":\"subscribe\",\"channel\":\"%s\"", channel);
  if (uids) length += snprintf(text + length, sizeof text - length, ",\"uid\":\"client %d\"", index);
  if (*epoch_name) length += snprintf(text + length, sizeof text - length, ",\"recover\":{\"epoch\":\"%s\",\"offset\":0}", epoch_name);
  snprintf(text + length, sizeof text - length, "}");
  say(c, text);
}

static void opened(struct client *c) {
  c->state = !strcmp(work, "slow") && c == all ? DEAF : OPEN;
  open_count++;
  if (staying) staying[(staying_first + staying_count++) % clients] = c;
  if (c->state == DEAF) epoll_ctl(epoll, EPOLL_CTL_DEL, c->fd, NULL);
}

static void closed(struct client *c) {
  if (c->fd < 0) return;
  close(c->fd);
  c->fd = -1;
  closed_count++;
  faults++;
}

static void reset_oldest(void) {
  struct client *c = staying[staying_first];
  staying_first = (staying_first + 1) % clients;
  staying_count--;
  if (c->fd >= 0) close(c->fd);
  c->fd = -1;
  vacant[vacant_count++] = c;
}

static void publish(int64_t number) {
  unsigned char out[1 << 16];
  size_t length = 0;
  int64_t at = now_ns();
  for (int64_t i = 0; i < number; i++) {
    char text[128];
    int64_t seq = next_seq++;
    snprintf(text, sizeof text, socketio ? "42[\"%s\",{\"seq\":%lld}]" : "{\"type\":\"%s\",\"seq\":%lld}", type, (long long)seq);
    sent_at[seq % MAX_WINDOW] = at;
    left[seq % MAX_WINDOW] = expect;
    length += frame(out + length, text);
    if (length > sizeof out - 256) {
      put(publisher, out, length);
      length = 0;
    }
  }
  if (length > 0) put(publisher, out, length);
}

static void ask(struct client *c) {
  char text[192];
  c->seq = next_seq++;
  c->sent_at = now_ns();
  if (!strcmp(work, "subscribe")) {
    /* The answer to the first has no uid, and is not counted. */
    unsigned char out[512];
    size_t length = frame(out, "{\"type\":\"unsubscribe\"}");
    snprintf(text, sizeof text, "{\"type\":\"subscribe\",\"channel\":\"own:%d\",\"uid\":%lld}", (int)(c - all), (long long)c->seq);
    put(c, out, length + frame(out + length, text));
    return;
  }
  static const char *pad = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijkl";
  snprintf(text, sizeof text, socketio ? "42[\"echo\",{\"uid\":%lld,\"text\":\"%s\"}]" : "{\"type\":\"echo\",\"uid\":%lld,\"text\":\"%s\"}",
    (long long)c->seq, pad);
  say(c, text);
}

static void heard(struct client *c, const unsigned char *text, size_t length, int64_t at) {
  if (is_elsewhere(c)) return;
  int is_answer = !strcmp(work, "echo") || !strcmp(work, "subscribe");
  const char *key = is_answer ? "\"uid\":" : "\"seq\":";
  const unsigned char *end = text + length, *found = text;
  while ((found = memmem(found, end - found, key, 6))) {
    found += 6;
    int64_t seq = strtoll((const char *)found, NULL, 10);
    delivered++;
    if (!strcmp(work, "recover")) {
      if (seq != c->seq + 1) faults++;
      c->seq = seq;
      record(at - c->sent_at);
      completed++;
    } else if (is_answer) {
      if (seq != c->seq) faults++;
      record(at - c->sent_at);
      completed++;
      if (next_seq < last_seq) ask(c);
    } else {
      if (seq != c->seq + 1) faults++;
      c->seq = seq;
      record(at - sent_at[seq % MAX_WINDOW]);
      if (--left[seq % MAX_WINDOW] == 0) completed++;
    }
  }
}

/* Of the protocol, or of Socket.IO: it has been answered. */
static void pinged(void) {
  if (strcmp(work, "beats")) return;
  delivered++;
  completed++;
}

static void took(struct client *c, int opcode, const unsigned char *payload, size_t length, int64_t at) {
  if (opcode == 9) {
    unsigned char pong[131] = {0x8a, 0x80 | length};
    memcpy(pong + 6, payload, length);
    put(c, pong, 6 + length);
    pinged();
  } else if (opcode == 8) closed(c);
  else if (c->state == JOINING) {
    if (*channel) {
      if (memmem(payload, length, "\"init\"", 6)) opened(c);
    } else if (length && payload[0] == '0') say(c, "40");
    else opened(c);
  } else if (socketio && length == 1 && payload[0] == '2') {
    say(c, "3");
    pinged();
  } else heard(c, payload, length, at);
}

static void readable(struct client *c, int64_t at) {
  size_t have = c->rest_length;
  memcpy(chunk, c->rest, have);
  ssize_t got = recv(c->fd, chunk + have, CHUNK - have, 0);
  if (got <= 0) {
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) closed(c);
    return;
  }
  unsigned char *at_byte = chunk, *end = chunk + have + got;
  *end = 0;
  if (c->state == UPGRADING) {
    unsigned char *body = memmem(chunk, end - chunk, "\r\n\r\n", 4);
    if (body) {
      at_byte = body + 4;
      if (memcmp(chunk, "HTTP/1.1 101", 12)) {
        faults++;
        closed(c);
        return;
      }
      if (socketio) c->state = JOINING;
      else if (*channel && strcmp(work, "recover") && !is_elsewhere(c)) {
        c->state = JOINING;
        join(c);
      } else opened(c);
    }
  }
  while (c->state != UPGRADING && c->fd >= 0 && end - at_byte >= 2) {
    size_t length = at_byte[1] & 127, header = 2;
    if (length == 126) {
      if (end - at_byte < 4) break;
      length = at_byte[2] << 8 | at_byte[3];
      header = 4;
    } else if (length == 127) {
      if (end - at_byte < 10) break;
      length = 0;
      for (int i = 2; i < 10; i++) length = length << 8 | at_byte[i];
      header = 10;
    }
    if ((size_t)(end - at_byte) < header + length) break;
    took(c, at_byte[0] & 15, at_byte + header, length, at);
    at_byte += header + length;
  }
  size_t rest = c->fd < 0 ? 0 : end - at_byte;
  if (rest > c->rest_length || (rest == 0 && c->rest)) c->rest = rest ? realloc(c->rest, rest) : (free(c->rest), NULL);
  if (rest) memcpy(c->rest, at_byte, rest);
  c->rest_length = rest;
}

/* Handles what has come, waiting for so many ms if it is nothing. Whether a line of standard input is among it, where that is watched. */
static int handle(int timeout) {
  static struct epoll_event events[4096];
  int n = epoll_wait(epoll, events, 4096, timeout), line = 0;
  int64_t at = now_ns();
  for (int i = 0; i < n; i++) {
    struct client *c = events[i].data.ptr;
    if (!c) line = 1;
    if (!c || c->fd < 0) continue;
    if (c->state == UPGRADING && events[i].events & EPOLLOUT) upgrade(c);
    if (c->fd >= 0 && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(c, at);
  }
  return line;
}

static void turn(void) {
  handle(polls ? 0 : 1000);
}

/* Has so many publications reach everybody, `window` of them under way. */
static void fan_out(int64_t number) {
  int64_t target = completed + number, end = next_seq + number, seen = completed - 1;
  int64_t deadline = now_ns() + 60000000000LL;
  while (completed < target) {
    int64_t under_way = next_seq - completed, room = window - under_way;
    if (room > end - next_seq) room = end - next_seq;
    if (room > 0) publish(room);
    turn();
    if (completed != seen) deadline = now_ns() + 20000000000LL;
    seen = completed;
    if (now_ns() > deadline || publisher->fd < 0) {
      faults += target - completed; /* Lost: nobody waits for ever. */
      return;
    }
  }
}

static void echo(int64_t number) {
  int64_t target = completed + number;
  last_seq = next_seq + number;
  for (int i = 0; i < clients && next_seq < last_seq; i++) ask(&all[i]);
  int64_t deadline = now_ns() + 60000000000LL;
  while (completed < target && now_ns() < deadline) turn();
  faults += target - completed;
}

static void connects(int64_t number) {
  int64_t begin = open_count, begun = 0;
  int64_t deadline = now_ns() + 60000000000LL;
  while (open_count < begin + number && faults == 0 && now_ns() < deadline) {
    while (staying_count > stay) reset_oldest();
    while (begun < number && begun - (open_count - begin) < window && vacant_count > 0) {
      struct client *c = vacant[--vacant_count];
      begun++;
      dial(c, c - all);
    }
    turn();
  }
  while (staying_count > stay) reset_oldest();
  faults += begin + number - open_count;
}

/* Does nothing but to answer so many pings. */
static void beats(int64_t number) {
  int64_t target = completed + number, deadline = now_ns() + 120000000000LL;
  while (completed < target && now_ns() < deadline) turn();
  if (completed < target) faults += target - completed; /* The last may have come with more. */
}

/* Everybody asks for everything that the history has, `count` publications. */
static void recover(void) {
  int64_t target = completed + count * clients, deadline = now_ns() + 60000000000LL;
  for (int i = 0; i < clients; i++) {
    all[i].seq = -1;
    all[i].sent_at = now_ns();
    join(&all[i]);
  }
  while (completed < target && now_ns() < deadline) turn();
  faults += target - completed;
}

static void run(int64_t number) {
  if (!strcmp(work, "fanout") || !strcmp(work, "slow")) fan_out(number);
  else if (!strcmp(work, "echo") || !strcmp(work, "subscribe")) echo(number);
  else if (!strcmp(work, "recover")) recover();
  else if (!strcmp(work, "connect")) connects(number);
  else if (!strcmp(work, "beats")) beats(number);
}

/* Says so, and waits for a line. Pings are answered meanwhile, or all their pongs would be a part of what is measured next. */
static void told(const char *word) {
  puts(word);
  fflush(stdout);
  struct epoll_event input = {.events = EPOLLIN};
  /* A file cannot be watched, and need not be waited for. */
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &input) == 0) {
    while (!handle(-1)) continue;
    epoll_ctl(epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
  }
  char line[64];
  if (!fgets(line, sizeof line, stdin)) exit(0);
}

static void measured(void) {
  memset(buckets, 0, sizeof buckets);
  delivered = 0;
  struct rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  int64_t begin = now_ns();
  run(count);
  double seconds = (now_ns() - begin) / 1e9;
  getrusage(RUSAGE_SELF, &after);
  double cpu = after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec - before.ru_stime.tv_sec +
    (after.ru_utime.tv_usec - before.ru_utime.tv_usec + after.ru_stime.tv_usec - before.ru_stime.tv_usec) / 1e6;
  char line[512];
  snprintf(line, sizeof line,
    "DONE {\"seconds\":%.6f,\"cpu\":%.6f,\"delivered\":%lld,\"faults\":%lld,\"p50\":%.3f,\"p99\":%.3f}",
    seconds, cpu, (long long)(!strcmp(work, "connect") ? count : delivered), (long long)faults, percentile(.5), percentile(.99));
  told(line);
}

int main(int argc, char **argv) {
  if (argc < 3) return fprintf(stderr, "load PORT WORK [name=value …]\n"), 2;
  port = atoi(argv[1]);
  work = argv[2];
  for (int i = 3; i < argc; i++) {
    char *value = strchr(argv[i], '=');
    if (!value) return fprintf(stderr, "load: %s?\n", argv[i]), 2;
    *value++ = 0;
    const char *name = argv[i];
    if (!strcmp(name, "clients")) clients = atoi(value);
    else if (!strcmp(name, "window")) window = atoi(value);
    else if (!strcmp(name, "count")) count = atoll(value);
    else if (!strcmp(name, "expect")) expect = atoi(value);
    else if (!strcmp(name, "few")) few = atoi(value);
    else if (!strcmp(name, "protocol")) protocol = value;
    else if (!strcmp(name, "socketio")) socketio = atoi(value);
    else if (!strcmp(name, "path")) path = value;
    else if (!strcmp(name, "say")) type = value;
    else if (!strcmp(name, "join")) channel = value;
    else if (!strcmp(name, "uids")) uids = atoi(value);
    else if (!strcmp(name, "turns")) turns = atoi(value);
    else if (!strcmp(name, "polls")) polls = atoi(value);
    else if (!strcmp(name, "epoch")) epoch_name = value;
    else if (!strcmp(name, "origin")) origin = atoi(value);
    else if (!strcmp(name, "stay")) stay = atoi(value);
    else if (!strcmp(name, "page")) page = value;
    else return fprintf(stderr, "load: unknown %s\n", name), 2;
  }
  if (!strcmp(work, "connect")) clients = window + stay;
  if (!expect) expect = clients;
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  int dialed = clients + (origin != 0);
  all = calloc(dialed, sizeof *all);
  publisher = &all[origin ? clients : !strcmp(work, "slow") ? 1 : 0];
  epoll = epoll_create1(0);
  for (int i = 0; i < dialed; i++) all[i].seq = -1;
  if (!strcmp(work, "connect")) {
    vacant = calloc(clients, sizeof *vacant);
    staying = calloc(clients, sizeof *staying);
    for (int i = clients; i-- > 0; vacant[vacant_count++] = &all[i]) all[i].fd = -1;
  } else {
    /* So many handshakes at once that no backlog overflows. */
    for (int i = 0; i < dialed; i++) {
      dial(&all[i], i);
      while (i + 1 - open_count > 200 && faults == 0) turn();
    }
    int64_t deadline = now_ns() + 60000000000LL;
    while (open_count < dialed && faults == 0 && now_ns() < deadline) turn();
    if (open_count < dialed) return fprintf(stderr, "load: %lld of %d connected\n", (long long)open_count, dialed), 1;
  }
  told("READY");
  int64_t first = turns > 1 ? count * turns / 5 : count / 5;
  run(first > stay ? first : stay);
  told("WARM");
  for (int i = 0; i < turns; i++) measured();
  return 0;
}
