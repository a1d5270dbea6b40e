/*
 * tensord.h: maps tensors of a tensord server from C, through its broker. One header, no library but the C library, Linux.
 *
 * In exactly one file:   #define TENSORD_IMPLEMENTATION
 *                        #include "tensord.h"
 *
 *   tensord_error error;
 *   tensord_client *client = tensord_connect(NULL, "{\"client\":{\"name\":\"reader\"}}", &error);
 *   tensord_region region;
 *   tensord_tensor w;
 *   if (client == NULL || tensord_attach(client, "default", "weights", NULL, TENSORD_READ, &region, &error) != 0 ||
 *       tensord_find(&region, "w", &w, &error) != 0) {
 *       fprintf(stderr, "%s: %s\n%s\n", error.code, error.detail, error.hint);
 *       return 1;
 *   }
 *   ... (const float *)w.data, w.shape[0], w.dtype ...
 *   tensord_detach(client, &region);
 *   tensord_close(client);
 *
 * It is written from docs/protocol.md, "The broker", and from nothing else: what is done and why stands there. A region stays
 * mapped, and leased, until tensord_detach or the process's end, whatever becomes of the server. A client is used by one thread
 * at a time, and not by a forked child. Functions that can fail return 0, or -1 with `error` filled in.
 *
 * A region in the memory of a device (storage cuda_vmm) is leased by tensord_attach_device, and not mapped: this header calls no
 * driver. Whoever does finds in tensord_device_region what it takes ("Attach on a device"); example-device.c does it.
 */

#ifndef TENSORD_H
#define TENSORD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TENSORD_MAX_DIMENSIONS 64

/* What is mapped how: to read, or to write an open region. */
enum { TENSORD_READ = 0, TENSORD_WRITE = 1 };

/*
 * `code` is one of the server's, such as region-not-found, or "io-error", "out-of-descriptors", "closed", "malformed-answer",
 * "feature-unavailable".
 */
typedef struct {
  char code[64];
  char detail[1024];
  char hint[512];
} tensord_error;

typedef struct tensord_client tensord_client;

typedef struct {
  char id[40];
  void *data;          /* of the whole file, its header first; read-only unless it was attached with TENSORD_WRITE */
  uint64_t byte_size;
  int leased;          /* 0: a process bars its lease; take one by request over HTTP to keep the server's books right */
  char *tensors;       /* the JSON array of its tensors, with a NUL behind it */
  uint64_t tensors_byte_size;
} tensord_region;

/* A region on a device. Nothing of it is mapped by this header. */
typedef struct {
  char id[40];
  int lease_fd;        /* of its lease file, which carries the lease: open until after the memory is unmapped. Not yours to close */
  int handle_fd;       /* the driver's, of the memory. Set it to -1 when you have closed it or given it away; else detaching closes it */
  char handle_type[32]; /* what it is to the driver: "posix_fd" */
  char device_uuid[64]; /* the device to import it on: "GPU-..." */
  uint64_t byte_size;        /* what the tensors take */
  uint64_t allocation_bytes; /* what has to be mapped, all of it */
  uint64_t granularity;      /* what addresses and sizes of mappings are multiples of */
  int leased;                /* as of tensord_region */
  char *tensors;
  uint64_t tensors_byte_size;
} tensord_device_region;

typedef struct {
  void *data;           /* NULL on a device */
  uint64_t byte_offset; /* from the region's first byte, which on a device is the memory's */
  uint64_t byte_size;
  char dtype[16];
  int dimensions;
  uint64_t shape[TENSORD_MAX_DIMENSIONS];
} tensord_tensor;

/*
 * Connects and says hello. `path` is the broker's socket; NULL: TENSORD_BROKER_SOCKET, else beside the Unix socket of
 * TENSORD_URL, else of the instance TENSORD_INSTANCE in TENSORD_SHM_DIR. `session` is what POST /v1/sessions takes, as JSON, to
 * open a session and hold it for as long as the client is open; or the id of one, in its quotes; or NULL.
 */
tensord_client *tensord_connect(const char *path, const char *session, tensord_error *error);
void tensord_close(tensord_client *client);

/* Maps a region by its name. `model` NULL is "default"; `version` NULL is the newest that is sealed, or, where none is, the newest. */
int tensord_attach(tensord_client *client, const char *model, const char *name, const char *version, int access,
                   tensord_region *region, tensord_error *error);
/* Unmaps, and tells. `client` may be NULL: then nobody is told. */
void tensord_detach(tensord_client *client, tensord_region *region);

/* A tensor of a mapped region, by its name. */
int tensord_find(const tensord_region *region, const char *name, tensord_tensor *tensor, tensord_error *error);

/*
 * Leases a region on a device by its name, as tensord_attach, and maps nothing. TENSORD_WRITE of an open region keeps it from being
 * sealed until tensord_detach_device. Map it for reading otherwise: that is an agreement, and nothing enforces it.
 */
int tensord_attach_device(tensord_client *client, const char *model, const char *name, const char *version, int access,
                          tensord_device_region *region, tensord_error *error);
/* Ends the lease, and tells: after the memory was unmapped. `client` may be NULL: then nobody is told. */
void tensord_detach_device(tensord_client *client, tensord_device_region *region);
/* A tensor of a region on a device, by its name: where it lies, without `data`. */
int tensord_find_on_device(const tensord_device_region *region, const char *name, tensord_tensor *tensor, tensord_error *error);

#ifdef __cplusplus
}
#endif
#endif

#ifdef TENSORD_IMPLEMENTATION

#ifndef _GNU_SOURCE
#error "tensord.h: define _GNU_SOURCE before the first include of the file that has TENSORD_IMPLEMENTATION"
#endif

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { TENSORD_FRAME = 65536, TENSORD_CONTROL = 1024, TENSORD_DEPTH = 64 };

struct tensord_client {
  int fd;
  int holds; /* whether it holds a session, to which mappings are reported */
  int64_t last_id;
  char frame[TENSORD_FRAME + 1]; /* the last answer, with a NUL behind it */
};

static int tensord__fail(tensord_error *error, const char *code, const char *detail, const char *hint) {
  snprintf(error->code, sizeof error->code, "%s", code);
  snprintf(error->detail, sizeof error->detail, "%s", detail);
  snprintf(error->hint, sizeof error->hint, "%s", hint);
  return -1;
}

static int tensord__fail_errno(tensord_error *error, const char *what, const char *hint) {
  char detail[512];
  snprintf(detail, sizeof detail, "Cannot %s: %s", what, strerror(errno));
  return tensord__fail(error, "io-error", detail, hint);
}

/* ---- JSON: values are found in the text and read there. The text ends with a NUL; NULL means that it is none. ---- */

static const char *tensord__space(const char *at) {
  while (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r') at++;
  return at;
}

static const char *tensord__skip_string(const char *at) {
  if (*at != '"') return NULL;
  for (at++; *at != '"'; at++) {
    if (*at == '\0') return NULL;
    if (*at == '\\' && *++at == '\0') return NULL;
  }
  return at + 1;
}

/* Behind the value that begins at `at`. */
static const char *tensord__skip(const char *at, int depth) {
  at = tensord__space(at);
  if (*at == '"') return tensord__skip_string(at);
  if (*at != '{' && *at != '[') {
    const char *end = at + strcspn(at, ",]} \t\r\n");
    return end == at ? NULL : end;
  }
  if (depth > TENSORD_DEPTH) return NULL;
  const char close = *at == '{' ? '}' : ']';
  at = tensord__space(at + 1);
  while (*at != close) {
    if (close == '}') {
      if ((at = tensord__skip_string(at)) == NULL) return NULL;
      at = tensord__space(at);
      if (*at++ != ':') return NULL;
    }
    if ((at = tensord__skip(at, depth + 1)) == NULL) return NULL;
    at = tensord__space(at);
    if (*at == ',') at = tensord__space(at + 1);
    else if (*at != close) return NULL;
  }
  return at + 1;
}

static int tensord__hex(const char *at) {
  int value = 0;
  for (int digit = 0; digit < 4; digit++) {
    const char c = at[digit];
    if (c >= '0' && c <= '9') value = value * 16 + (c - '0');
    else if (c >= 'a' && c <= 'f') value = value * 16 + (c - 'a' + 10);
    else if (c >= 'A' && c <= 'F') value = value * 16 + (c - 'A' + 10);
    else return -1;
  }
  return value;
}

static size_t tensord__utf8(char *to, uint32_t c) {
  if (c < 0x80) return to[0] = (char)c, 1;
  if (c < 0x800) return to[0] = (char)(0xc0 | c >> 6), to[1] = (char)(0x80 | (c & 63)), 2;
  if (c < 0x10000) {
    to[0] = (char)(0xe0 | c >> 12), to[1] = (char)(0x80 | (c >> 6 & 63)), to[2] = (char)(0x80 | (c & 63));
    return 3;
  }
  to[0] = (char)(0xf0 | c >> 18), to[1] = (char)(0x80 | (c >> 12 & 63)), to[2] = (char)(0x80 | (c >> 6 & 63));
  to[3] = (char)(0x80 | (c & 63));
  return 4;
}

/* Reads the string at `at` as UTF-8 with a NUL, cut to `size`. Returns its whole length, or -1 if it is no string. */
static long tensord__string(const char *at, char *to, size_t size) {
  size_t length = 0, kept = 0;
  at = at == NULL ? NULL : tensord__space(at);
  if (size > 0) to[0] = '\0';
  if (at == NULL || tensord__skip_string(at) == NULL) return -1;
  for (at++; *at != '"'; at++) {
    char bytes[4] = {*at, 0, 0, 0};
    size_t count = 1;
    if (*at == '\\') {
      static const char from[] = "bfnrt", into[] = "\b\f\n\r\t";
      const char *known = strchr(from, *++at);
      bytes[0] = known == NULL ? *at : into[known - from];
      if (*at == 'u') {
        int c = tensord__hex(at + 1), low = -1;
        if (c < 0) return -1;
        at += 4;
        if (c >= 0xd800 && c < 0xdc00 && at[1] == '\\' && at[2] == 'u') low = tensord__hex(at + 3);
        if (low >= 0xdc00 && low < 0xe000) {
          at += 6;
          c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        }
        count = tensord__utf8(bytes, (uint32_t)c);
      }
    }
    /* Cut before a character, never inside one. */
    if (kept == length && length + count < size) {
      memcpy(to + length, bytes, count);
      kept = length + count;
      to[kept] = '\0';
    }
    length += count;
  }
  return (long)length;
}

static int tensord__is(const char *at, const char *text) {
  char read[600];
  const long length = tensord__string(at, read, sizeof read);
  return length >= 0 && (size_t)length == strlen(text) && (size_t)length < sizeof read && memcmp(read, text, (size_t)length) == 0;
}

/* The value of a member of the object at `object`. */
static const char *tensord__member(const char *object, const char *name) {
  if (object == NULL) return NULL;
  const char *at = tensord__space(object);
  if (*at++ != '{') return NULL;
  for (at = tensord__space(at); *at == '"'; at = tensord__space(at)) {
    const char *key = at;
    if ((at = tensord__skip_string(at)) == NULL) return NULL;
    at = tensord__space(at);
    if (*at++ != ':') return NULL;
    at = tensord__space(at);
    if (tensord__is(key, name)) return at;
    if ((at = tensord__skip(at, 0)) == NULL) return NULL;
    at = tensord__space(at);
    if (*at == ',') at = tensord__space(at + 1);
  }
  return NULL;
}

/* The next element of an array: the first behind '[', and then behind the one at `at`. NULL at its end. */
static const char *tensord__next(const char *array, const char *at) {
  if (array == NULL) return NULL;
  if (at == NULL) {
    at = tensord__space(array);
    if (*at++ != '[') return NULL;
    at = tensord__space(at);
    return *at == ']' || *at == '\0' ? NULL : at;
  }
  if ((at = tensord__skip(at, 0)) == NULL) return NULL;
  at = tensord__space(at);
  return *at == ',' ? tensord__space(at + 1) : NULL;
}

/* A whole number, also in text as `dev` and `ino` are. */
static int tensord__number(const char *at, uint64_t *value) {
  char *end;
  if (at == NULL) return -1;
  at = tensord__space(at);
  if (*at == '"') at++;
  if (*at < '0' || *at > '9') return -1;
  errno = 0;
  *value = strtoull(at, &end, 10);
  return errno != 0 || *end == '.' || *end == 'e' || *end == 'E' ? -1 : 0;
}

static int tensord__true(const char *at) { return at != NULL && strncmp(tensord__space(at), "true", 4) == 0; }

/* Writes `text` as a JSON string. Returns -1 if there is no room for it. */
static int tensord__quote(char *to, size_t size, const char *text) {
  size_t length = 0;
  if (size < 3) return -1;
  to[length++] = '"';
  for (; *text != '\0'; text++) {
    const unsigned char c = (unsigned char)*text;
    if (length + 8 > size) return -1;
    if (c < 0x20) length += (size_t)snprintf(to + length, 7, "\\u%04x", c);
    else {
      if (c == '"' || c == '\\') to[length++] = '\\';
      to[length++] = (char)c;
    }
  }
  to[length++] = '"';
  to[length] = '\0';
  return 0;
}

/* ---- The connection ---- */

static int tensord__close_all(const int *fds, int count) {
  for (int i = 0; i < count; i++) close(fds[i]);
  return -1;
}

/* Copies a problem of the server's. */
static int tensord__problem(const char *answer, tensord_error *error) {
  const char *problem = tensord__member(answer, "problem");
  if (tensord__string(tensord__member(problem, "code"), error->code, sizeof error->code) < 0) {
    return tensord__fail(error, "malformed-answer", "Cannot read the broker's answer", "Is it a tensord server that listens there?");
  }
  tensord__string(tensord__member(problem, "detail"), error->detail, sizeof error->detail);
  tensord__string(tensord__member(problem, "hint"), error->hint, sizeof error->hint);
  return -1;
}

/* Asks, and reads the answer into client->frame. `fds` has room for `most`; `count` is how many came. */
static int tensord__ask(tensord_client *client, const char *request, int *fds, int most, int *count, tensord_error *error) {
  union {
    char bytes[TENSORD_CONTROL];
    struct cmsghdr aligned;
  } control;
  struct iovec part = {client->frame, TENSORD_FRAME};
  struct msghdr message;
  ssize_t length;
  uint64_t id;
  *count = 0;
  do {
    length = send(client->fd, request, strlen(request), MSG_NOSIGNAL);
  } while (length < 0 && errno == EINTR);
  if (length < 0 && errno != EPIPE) return tensord__fail_errno(error, "ask the broker", "Is the server still there? Connect again.");
  do {
    memset(&message, 0, sizeof message);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    length = recvmsg(client->fd, &message, MSG_CMSG_CLOEXEC);
  } while (length < 0 && errno == EINTR);
  if (length < 0 && errno != ECONNRESET) return tensord__fail_errno(error, "read the broker's answer", "Connect again.");
  if (length <= 0) return tensord__fail(error, "closed", "Cannot ask the broker: it closed the connection", "Connect again.");
  client->frame[length] = '\0';
  for (struct cmsghdr *head = CMSG_FIRSTHDR(&message); head != NULL; head = CMSG_NXTHDR(&message, head)) {
    if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) continue;
    const int came = (int)((head->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    for (int i = 0; i < came; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(head) + (size_t)i * sizeof fd, sizeof fd);
      if (*count < most) fds[(*count)++] = fd;
      else close(fd);
    }
  }
  if ((message.msg_flags & MSG_CTRUNC) != 0) {
    tensord__close_all(fds, *count);
    return tensord__fail(error, "out-of-descriptors", "Cannot take the descriptors: this process may open no more files",
                         "Close files, or raise the limit (ulimit -n).");
  }
  if ((message.msg_flags & MSG_TRUNC) != 0 || strlen(client->frame) != (size_t)length ||
      tensord__skip(client->frame, 0) == NULL) {
    tensord__close_all(fds, *count);
    return tensord__fail(error, "malformed-answer", "Cannot read the broker's answer", "Is it a tensord server that listens there?");
  }
  if (!tensord__true(tensord__member(client->frame, "ok"))) {
    tensord__close_all(fds, *count);
    return tensord__problem(client->frame, error);
  }
  if (tensord__number(tensord__member(client->frame, "id"), &id) != 0 || id != (uint64_t)client->last_id) {
    tensord__close_all(fds, *count);
    return tensord__fail(error, "malformed-answer", "Cannot read the broker's answer: it is one to another request", "Connect again.");
  }
  return 0;
}

/* Where the broker listens, as docs/protocol.md says. */
static int tensord__path(const char *given, char *to, size_t size) {
  const char *url = getenv("TENSORD_URL"), *shm = getenv("TENSORD_SHM_DIR"), *instance = getenv("TENSORD_INSTANCE");
  const char *named = given != NULL ? given : getenv("TENSORD_BROKER_SOCKET");
  if (named != NULL && *named != '\0') return snprintf(to, size, "%s", named);
  if (url != NULL && strncmp(url, "unix://", 7) == 0) {
    const char *socket = url + 7, *slash = strrchr(socket, '/');
    if (slash == NULL || strcmp(slash, "/http.sock") != 0) return snprintf(to, size, "%s.broker", socket);
    return snprintf(to, size, "%.*s/broker.sock", (int)(slash - socket), socket);
  }
  return snprintf(to, size, "%s/tensord.%s/broker.sock", shm != NULL && *shm != '\0' ? shm : "/dev/shm",
                  instance != NULL && *instance != '\0' ? instance : "default");
}

tensord_client *tensord_connect(const char *path, const char *session, tensord_error *error) {
  char request[TENSORD_FRAME];
  struct sockaddr_un address;
  int count;
  memset(&address, 0, sizeof address);
  address.sun_family = AF_UNIX;
  const int length = tensord__path(path, address.sun_path, sizeof address.sun_path);
  if (length < 0 || (size_t)length >= sizeof address.sun_path) {
    tensord__fail(error, "io-error", "Cannot connect: the socket's path is longer than 107 bytes", "Choose a shorter TENSORD_BROKER_SOCKET.");
    return NULL;
  }
  const int written =
      snprintf(request, sizeof request, "{\"id\":1,\"op\":\"hello\",\"v\":1%s%s}", session == NULL ? "" : ",\"session\":", session == NULL ? "" : session);
  if (written < 0 || (size_t)written >= sizeof request) {
    tensord__fail(error, "payload-too-large", "Cannot say hello: the session is longer than a message", "Give it fewer labels.");
    return NULL;
  }
  tensord_client *client = (tensord_client *)calloc(1, sizeof *client);
  if (client == NULL) {
    tensord__fail_errno(error, "connect", "Free memory.");
    return NULL;
  }
  client->last_id = 1;
  client->holds = session != NULL;
  client->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (client->fd < 0 || connect(client->fd, (const struct sockaddr *)&address, sizeof address) != 0) {
    char what[160];
    snprintf(what, sizeof what, "connect to %s", address.sun_path);
    tensord__fail_errno(error, what, "Start the server, name its socket in TENSORD_BROKER_SOCKET, and be in its group.");
  } else if (tensord__ask(client, request, NULL, 0, &count, error) == 0) {
    return client;
  }
  tensord_close(client);
  return NULL;
}

void tensord_close(tensord_client *client) {
  if (client == NULL) return;
  if (client->fd >= 0) close(client->fd);
  free(client);
}

/* Reads what `tensors` of the answer is. The caller frees `text`, also after a failure. */
static int tensord__read_tensors(int fd, uint64_t byte_size, char **text, tensord_error *error) {
  *text = (char *)malloc((size_t)byte_size + 1);
  uint64_t done = 0;
  while (*text != NULL && done < byte_size) {
    const ssize_t count = pread(fd, *text + done, (size_t)(byte_size - done), (off_t)done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    done += (uint64_t)count;
  }
  if (*text == NULL || done < byte_size) return tensord__fail_errno(error, "read the list of tensors", "Attach again.");
  (*text)[byte_size] = '\0';
  return 0;
}

static int tensord__unreadable(const char *what, tensord_error *error) {
  char detail[96];
  snprintf(detail, sizeof detail, "Cannot read %s", what);
  return tensord__fail(error, "malformed-answer", detail, "Is the server's version known to this client?");
}

/* That the file which came is the region's. */
static int tensord__check_file(int fd, const char *storage, struct stat *file, tensord_error *error) {
  uint64_t dev, ino;
  if (tensord__number(tensord__member(storage, "dev"), &dev) != 0 || tensord__number(tensord__member(storage, "ino"), &ino) != 0) {
    return tensord__unreadable("the region's descriptor", error);
  }
  if (fstat(fd, file) != 0) return tensord__fail_errno(error, "look at the region's file", "Attach again.");
  if (S_ISREG(file->st_mode) && (uint64_t)file->st_dev == dev && (uint64_t)file->st_ino == ino) return 0;
  return tensord__fail(error, "malformed-answer", "Cannot attach the region: another file came", "Attach again.");
}

/* Looks at the file that came, and maps it. */
static int tensord__map(int fd, const char *storage, int access, tensord_region *region, tensord_error *error) {
  struct stat file;
  if (tensord__number(tensord__member(storage, "byte_size"), &region->byte_size) != 0 || region->byte_size == 0) {
    return tensord__unreadable("the region's descriptor", error);
  }
  if (tensord__check_file(fd, storage, &file, error) != 0) return -1;
  if ((uint64_t)file.st_size < region->byte_size) {
    return tensord__fail(error, "io-error", "Cannot map the region: a process made its file shorter", "Create the region anew.");
  }
  const int protection = access == TENSORD_WRITE ? PROT_READ | PROT_WRITE : PROT_READ;
  region->data = mmap(NULL, (size_t)region->byte_size, protection, MAP_SHARED, fd, 0);
  if (region->data != MAP_FAILED) return 0;
  region->data = NULL;
  return tensord__fail_errno(error, "map the region", "Free address space or memory.");
}

/* Tells that a region is let go of. */
static void tensord__release(tensord_client *client, const char *id) {
  char request[160];
  tensord_error ignored;
  int count;
  if (id[0] == '\0' || client == NULL || !client->holds) return;
  client->last_id++;
  snprintf(request, sizeof request, "{\"id\":%lld,\"op\":\"release\",\"region\":\"%s\"}", (long long)client->last_id, id);
  tensord__ask(client, request, NULL, 0, &count, &ignored);
}

/* What an attach is answered with; -1 stands for a descriptor that is not there. Those that came are the caller's to close. */
typedef struct {
  int region, handle, tensors;
  uint64_t tensors_byte_size;
  const char *storage; /* in the frame, until the next question */
  int leased;
} tensord__handed;

/* Asks for a region by its name. Of what fails nothing is left, and `id` says what to release. */
static int tensord__hand_out(tensord_client *client, const char *model, const char *name, const char *version, int access, char *id,
                             size_t id_size, tensord__handed *handed, tensord_error *error) {
  char request[2048], quoted[3][512];
  int fds[3], count, at = 0;
  if (tensord__quote(quoted[0], sizeof quoted[0], model == NULL ? "default" : model) != 0 ||
      tensord__quote(quoted[1], sizeof quoted[1], name) != 0 ||
      tensord__quote(quoted[2], sizeof quoted[2], version == NULL ? "" : version) != 0) {
    return tensord__fail(error, "validation-failed", "Cannot attach: a name is too long", "Names have at most 128 characters.");
  }
  client->last_id++;
  snprintf(request, sizeof request,
           "{\"id\":%lld,\"op\":\"attach\",\"model\":%s,\"name\":%s%s%s,\"access\":\"%s\",\"tensors\":true}",
           (long long)client->last_id, quoted[0], quoted[1], version == NULL ? "" : ",\"version\":", version == NULL ? "" : quoted[2],
           access == TENSORD_WRITE ? "rw" : "ro");
  const int result = tensord__ask(client, request, fds, 3, &count, error);
  const char *descriptor = tensord__member(client->frame, "region");
  /* Handed out, and not all of it came: it is let go of. */
  if (result == 0 || strcmp(error->code, "out-of-descriptors") == 0) tensord__string(tensord__member(descriptor, "id"), id, id_size);
  if (result != 0) return -1;
  handed->region = handed->handle = handed->tensors = -1;
  handed->storage = tensord__member(descriptor, "storage");
  handed->leased = tensord__true(tensord__member(client->frame, "leased"));
  const char *names = tensord__member(client->frame, "fds");
  for (const char *of = tensord__next(names, NULL); of != NULL && at < count; of = tensord__next(names, of)) {
    int *const place = tensord__is(of, "region")    ? &handed->region
                       : tensord__is(of, "handle")  ? &handed->handle
                       : tensord__is(of, "tensors") ? &handed->tensors
                                                    : NULL;
    if (place == NULL || *place >= 0) break;
    *place = fds[at++];
  }
  if (at == count && handed->region >= 0 && handed->tensors >= 0 && id[0] != '\0' &&
      tensord__number(tensord__member(client->frame, "tensors_byte_size"), &handed->tensors_byte_size) == 0) {
    return 0;
  }
  tensord__close_all(fds, count);
  return tensord__unreadable("the broker's answer", error);
}

int tensord_attach(tensord_client *client, const char *model, const char *name, const char *version, int access,
                   tensord_region *region, tensord_error *error) {
  tensord__handed handed;
  memset(region, 0, sizeof *region);
  int result = tensord__hand_out(client, model, name, version, access, region->id, sizeof region->id, &handed, error);
  if (result == 0) {
    region->leased = handed.leased;
    region->tensors_byte_size = handed.tensors_byte_size;
    result = handed.handle >= 0 ? tensord__fail(error, "feature-unavailable", "Cannot map the region: it is memory of a device",
                                                "tensord_attach_device has its descriptor, for who calls the driver.")
                                : tensord__map(handed.region, handed.storage, access, region, error);
    if (result == 0) result = tensord__read_tensors(handed.tensors, handed.tensors_byte_size, &region->tensors, error);
    close(handed.region);
    close(handed.tensors);
    if (handed.handle >= 0) close(handed.handle);
  }
  if (result != 0) tensord_detach(client, region);
  return result;
}

void tensord_detach(tensord_client *client, tensord_region *region) {
  if (region->data != NULL) munmap(region->data, (size_t)region->byte_size);
  tensord__release(client, region->id);
  free(region->tensors);
  memset(region, 0, sizeof *region);
}

/* Looks at the lease file, and reads what the memory is. */
static int tensord__describe_device(const tensord__handed *handed, tensord_device_region *region, tensord_error *error) {
  const char *storage = handed->storage;
  struct stat file;
  if (handed->handle < 0) {
    return tensord__fail(error, "feature-unavailable", "Cannot attach the region on a device: it is in host memory", "tensord_attach maps it.");
  }
  if (tensord__string(tensord__member(storage, "handle_type"), region->handle_type, sizeof region->handle_type) < 0 ||
      tensord__string(tensord__member(storage, "device_uuid"), region->device_uuid, sizeof region->device_uuid) < 0 ||
      tensord__number(tensord__member(storage, "byte_size"), &region->byte_size) != 0 ||
      tensord__number(tensord__member(storage, "allocation_bytes"), &region->allocation_bytes) != 0 ||
      tensord__number(tensord__member(storage, "granularity"), &region->granularity) != 0 ||
      region->byte_size > region->allocation_bytes) {
    return tensord__unreadable("the region's descriptor", error);
  }
  return tensord__check_file(handed->region, storage, &file, error);
}

int tensord_attach_device(tensord_client *client, const char *model, const char *name, const char *version, int access,
                          tensord_device_region *region, tensord_error *error) {
  tensord__handed handed;
  memset(region, 0, sizeof *region);
  region->lease_fd = region->handle_fd = -1;
  int result = tensord__hand_out(client, model, name, version, access, region->id, sizeof region->id, &handed, error);
  if (result == 0) {
    region->lease_fd = handed.region;
    region->handle_fd = handed.handle;
    region->leased = handed.leased;
    region->tensors_byte_size = handed.tensors_byte_size;
    result = tensord__describe_device(&handed, region, error);
    if (result == 0) result = tensord__read_tensors(handed.tensors, handed.tensors_byte_size, &region->tensors, error);
    close(handed.tensors);
  }
  if (result != 0) tensord_detach_device(client, region);
  return result;
}

void tensord_detach_device(tensord_client *client, tensord_device_region *region) {
  if (region->handle_fd >= 0) close(region->handle_fd);
  if (region->lease_fd >= 0) close(region->lease_fd);
  tensord__release(client, region->id);
  free(region->tensors);
  memset(region, 0, sizeof *region);
  region->lease_fd = region->handle_fd = -1;
}

/* A tensor in the list of a region of so many bytes. */
static int tensord__find(const char *tensors, uint64_t region_size, const char *name, tensord_tensor *tensor, tensord_error *error) {
  memset(tensor, 0, sizeof *tensor);
  for (const char *at = tensord__next(tensors, NULL); at != NULL; at = tensord__next(tensors, at)) {
    if (!tensord__is(tensord__member(at, "name"), name)) continue;
    const char *shape = tensord__member(at, "shape");
    int ok = tensord__number(tensord__member(at, "byte_offset"), &tensor->byte_offset) == 0 &&
             tensord__number(tensord__member(at, "byte_size"), &tensor->byte_size) == 0 &&
             tensor->byte_offset <= region_size && tensor->byte_size <= region_size - tensor->byte_offset &&
             tensord__string(tensord__member(at, "dtype"), tensor->dtype, sizeof tensor->dtype) >= 0;
    for (const char *d = tensord__next(shape, NULL); ok && d != NULL; d = tensord__next(shape, d)) {
      ok = tensor->dimensions < TENSORD_MAX_DIMENSIONS && tensord__number(d, &tensor->shape[tensor->dimensions++]) == 0;
    }
    return ok ? 0 : tensord__unreadable("the tensor in the region's list", error);
  }
  char detail[700];
  snprintf(detail, sizeof detail, "Cannot find tensor %.512s: the region has none of that name", name);
  return tensord__fail(error, "tensor-not-found", detail, "region.tensors has the names of all.");
}

int tensord_find(const tensord_region *region, const char *name, tensord_tensor *tensor, tensord_error *error) {
  if (tensord__find(region->tensors, region->byte_size, name, tensor, error) != 0) return -1;
  tensor->data = (char *)region->data + tensor->byte_offset;
  return 0;
}

int tensord_find_on_device(const tensord_device_region *region, const char *name, tensord_tensor *tensor, tensord_error *error) {
  return tensord__find(region->tensors, region->byte_size, name, tensor, error);
}

#endif /* TENSORD_IMPLEMENTATION */
