/*
 * Copies, streams, events and pinned host memory. What is queued on a stream happens when somebody waits for it and not
 * before, so whoever forgets to wait reads old bytes. What reaches memory that is not mapped breaks the context, as an
 * illegal access does.
 */

#include "stand-in.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum kind { TO_DEVICE, TO_HOST, FILL, MARK };

struct task {
  struct task *next;
  CUstream stream;
  enum kind kind;
  CUdeviceptr address;
  char *host;
  /* `host` is a copy of what cannot be read later, and is freed after it. */
  bool is_own;
  size_t byte_size;
  unsigned char value;
  CUevent event;
};

struct pinned {
  char *start;
  size_t byte_size;
  bool is_own;
};

/* A stream or an event that this process made. */
struct made {
  void *self;
  bool is_event;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct task *first, **last = &first;
static struct pinned *pinned;
static struct made *made;
static size_t pinned_count, made_count;

#define GROW(list, count) \
  ((list) = realloc((list), ((count) + 1) * sizeof *(list)), (list) == NULL ? abort() : (void)0, &(list)[(count)++])

struct cursor {
  char *host;
  unsigned char value;
};

static void run_to_device(char *bytes, size_t size, void *state) {
  struct cursor *cursor = state;
  memcpy(bytes, cursor->host, size);
  cursor->host += size;
}

static void run_to_host(char *bytes, size_t size, void *state) {
  struct cursor *cursor = state;
  memcpy(cursor->host, bytes, size);
  cursor->host += size;
}

static void run_fill(char *bytes, size_t size, void *state) {
  memset(bytes, ((struct cursor *)state)->value, size);
}

static CUresult perform(enum kind kind, CUdeviceptr address, char *host, unsigned char value, size_t size) {
  struct cursor cursor = {host, value};
  const int needed = kind == TO_HOST ? CU_MEM_ACCESS_FLAGS_PROT_READ : CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  if (kind == MARK || size == 0) return CUDA_SUCCESS;
  const bool is_mapped = each_run(address, size, needed,
                                  kind == TO_DEVICE ? run_to_device
                                  : kind == TO_HOST ? run_to_host
                                                    : run_fill,
                                  &cursor);
  return is_mapped ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* Takes the first task of `stream`, or of any where that is `every`. */
static struct task *take(CUstream stream, bool every) {
  for (struct task **at = &first; *at != NULL; at = &(*at)->next) {
    struct task *task = *at;
    if (!every && task->stream != stream) continue;
    *at = task->next;
    if (last == &task->next) last = at;
    return task;
  }
  return NULL;
}

static CUresult drain(CUstream stream, bool every) {
  CUresult result = CUDA_SUCCESS;
  pthread_mutex_lock(&mutex);
  for (struct task *task = take(stream, every); task != NULL; task = take(stream, every)) {
    if (perform(task->kind, task->address, task->host, task->value, task->byte_size) != CUDA_SUCCESS)
      result = CUDA_ERROR_ILLEGAL_ADDRESS;
    if (task->is_own) free(task->host);
    free(task);
  }
  pthread_mutex_unlock(&mutex);
  if (result != CUDA_SUCCESS) call_break(result);
  return result;
}

CUresult queue_drain_all(void) {
  return drain(NULL, true);
}

static bool is_made(const void *self, bool is_event) {
  for (size_t i = 0; i < made_count; i++)
    if (made[i].self == self && made[i].is_event == is_event) return true;
  return false;
}

static bool is_stream(CUstream stream) {
  return stream == NULL || is_made(stream, false);
}

static bool is_pinned(const char *start, size_t size) {
  for (size_t i = 0; i < pinned_count; i++)
    if (pinned[i].start <= start && start + size <= pinned[i].start + pinned[i].byte_size) return true;
  return false;
}

static CUresult queue(struct task task) {
  if (!is_stream(task.stream)) return CUDA_ERROR_INVALID_HANDLE;
  struct task *queued = malloc(sizeof task);
  if (queued == NULL) abort();
  *queued = task;
  queued->next = NULL;
  pthread_mutex_lock(&mutex);
  *last = queued;
  last = &queued->next;
  pthread_mutex_unlock(&mutex);
  return CUDA_SUCCESS;
}

/* Each that does not queue comes after all that is queued. */
#define NOW(kind, address, host, value, size)                                    \
  do {                                                                           \
    const CUresult before = queue_drain_all();                                   \
    if (before != CUDA_SUCCESS) LEAVE(before, "%llx %zu", address, size);        \
    LEAVE(perform(kind, address, host, value, size), "%llx %zu", address, size); \
  } while (0)

CUresult cuMemcpyHtoD(CUdeviceptr address, const void *host, size_t size) {
  ENTER(NEEDS_CONTEXT);
  NOW(TO_DEVICE, address, (char *)host, 0, size);
}

CUresult cuMemcpyDtoH(void *host, CUdeviceptr address, size_t size) {
  ENTER(NEEDS_CONTEXT);
  NOW(TO_HOST, address, host, 0, size);
}

CUresult cuMemsetD8(CUdeviceptr address, unsigned char value, size_t size) {
  ENTER(NEEDS_CONTEXT);
  NOW(FILL, address, NULL, value, size);
}

CUresult cuMemsetD8Async(CUdeviceptr address, unsigned char value, size_t size, CUstream stream) {
  ENTER(NEEDS_CONTEXT);
  LEAVE(queue((struct task){.stream = stream, .kind = FILL, .address = address, .byte_size = size, .value = value}),
        "%llx %zu", address, size);
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr address, const void *host, size_t size, CUstream stream) {
  ENTER(NEEDS_CONTEXT);
  struct task task = {.stream = stream, .kind = TO_DEVICE, .address = address, .host = (char *)host, .byte_size = size};
  /* What is not pinned is read at once, by way of the driver's own staging. */
  if (!is_pinned(host, size)) {
    task.host = malloc(size);
    task.is_own = true;
    if (task.host == NULL) abort();
    memcpy(task.host, host, size);
  }
  LEAVE(queue(task), "%llx %zu", address, size);
}

CUresult cuMemcpyDtoHAsync(void *host, CUdeviceptr address, size_t size, CUstream stream) {
  ENTER(NEEDS_CONTEXT);
  const CUresult result =
      queue((struct task){.stream = stream, .kind = TO_HOST, .address = address, .host = host, .byte_size = size});
  LEAVE(result == CUDA_SUCCESS && !is_pinned(host, size) ? drain(stream, false) : result, "%llx %zu", address, size);
}

static void *add(bool is_event) {
  void *self = malloc(1);
  if (self == NULL) abort();
  pthread_mutex_lock(&mutex);
  *GROW(made, made_count) = (struct made){self, is_event};
  pthread_mutex_unlock(&mutex);
  return self;
}

static bool take_away(const void *self, bool is_event) {
  bool is_known = false;
  pthread_mutex_lock(&mutex);
  for (size_t i = 0; i < made_count && !is_known; i++) {
    is_known = made[i].self == self && made[i].is_event == is_event;
    if (is_known) made[i] = made[--made_count];
  }
  pthread_mutex_unlock(&mutex);
  return is_known;
}

CUresult cuStreamCreate(CUstream *stream, unsigned int flags) {
  ENTER(NEEDS_CONTEXT);
  if (stream == NULL || flags > CU_STREAM_NON_BLOCKING) LEAVE(CUDA_ERROR_INVALID_VALUE, "%u", flags);
  *stream = add(false);
  LEAVE(CUDA_SUCCESS, "%u", flags);
}

CUresult cuStreamSynchronize(CUstream stream) {
  ENTER(NEEDS_CONTEXT);
  LEAVE(is_stream(stream) ? drain(stream, false) : CUDA_ERROR_INVALID_HANDLE, "");
}

CUresult cuStreamDestroy(CUstream stream) {
  ENTER(NEEDS_CONTEXT);
  if (stream == NULL || !is_made(stream, false)) LEAVE(CUDA_ERROR_INVALID_HANDLE, "");
  const CUresult result = drain(stream, false);
  take_away(stream, false);
  LEAVE(result, "");
}

CUresult cuEventCreate(CUevent *event, unsigned int flags) {
  ENTER(NEEDS_CONTEXT);
  if (event == NULL) LEAVE(CUDA_ERROR_INVALID_VALUE, "%u", flags);
  *event = add(true);
  LEAVE(CUDA_SUCCESS, "%u", flags);
}

CUresult cuEventDestroy(CUevent event) {
  ENTER(NEEDS_CONTEXT);
  LEAVE(take_away(event, true) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE, "");
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
  ENTER(NEEDS_CONTEXT);
  if (!is_made(event, true)) LEAVE(CUDA_ERROR_INVALID_HANDLE, "");
  LEAVE(queue((struct task){.stream = stream, .kind = MARK, .event = event}), "");
}

/* The stream in which `event` still waits for its turn. */
static bool find_waiting(CUevent event, CUstream *stream) {
  bool is_waiting = false;
  pthread_mutex_lock(&mutex);
  for (const struct task *task = first; task != NULL; task = task->next) {
    if (task->kind != MARK || task->event != event) continue;
    *stream = task->stream;
    is_waiting = true;
  }
  pthread_mutex_unlock(&mutex);
  return is_waiting;
}

CUresult cuEventSynchronize(CUevent event) {
  ENTER(NEEDS_CONTEXT);
  CUstream stream;
  if (!is_made(event, true)) LEAVE(CUDA_ERROR_INVALID_HANDLE, "");
  LEAVE(find_waiting(event, &stream) ? drain(stream, false) : CUDA_SUCCESS, "");
}

/* Not ready at the first question after a record, so that whoever does not ask again is found out. */
CUresult cuEventQuery(CUevent event) {
  ENTER(NEEDS_CONTEXT);
  CUstream stream;
  if (!is_made(event, true)) LEAVE(CUDA_ERROR_INVALID_HANDLE, "");
  if (!find_waiting(event, &stream)) LEAVE(CUDA_SUCCESS, "");
  const CUresult result = drain(stream, false);
  LEAVE(result == CUDA_SUCCESS ? CUDA_ERROR_NOT_READY : result, "");
}

static bool overlaps_pinned(const char *start, size_t size) {
  for (size_t i = 0; i < pinned_count; i++)
    if (pinned[i].start < start + size && start < pinned[i].start + pinned[i].byte_size) return true;
  return false;
}

/* Whether this process maps all of it. */
static bool is_there(const char *start, size_t size) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE), before = (uintptr_t)start % page;
  unsigned char *pages = malloc((size + before) / page + 1);
  const bool result = pages != NULL && mincore((void *)(start - before), size + before, pages) == 0;
  free(pages);
  return result;
}

CUresult cuMemHostRegister(void *start, size_t size, unsigned int flags) {
  ENTER(NEEDS_CONTEXT);
  if (start == NULL || size == 0 || flags > 15 || !is_there(start, size)) LEAVE(CUDA_ERROR_INVALID_VALUE, "%zu", size);
  if (flags & CU_MEMHOSTREGISTER_READ_ONLY) LEAVE(CUDA_ERROR_NOT_SUPPORTED, "%zu", size);
  if (overlaps_pinned(start, size)) LEAVE(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "%zu", size);
  *GROW(pinned, pinned_count) = (struct pinned){start, size, false};
  LEAVE(CUDA_SUCCESS, "%zu", size);
}

static bool unpin(const char *start, bool is_own) {
  for (size_t i = 0; i < pinned_count; i++) {
    if (pinned[i].start != start || pinned[i].is_own != is_own) continue;
    if (is_own) munmap(pinned[i].start, pinned[i].byte_size);
    pinned[i] = pinned[--pinned_count];
    return true;
  }
  return false;
}

CUresult cuMemHostUnregister(void *start) {
  ENTER(NEEDS_CONTEXT);
  LEAVE(unpin(start, false) ? CUDA_SUCCESS : CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, "");
}

CUresult cuMemHostAlloc(void **start, size_t size, unsigned int flags) {
  ENTER(NEEDS_CONTEXT);
  if (start == NULL || size == 0 || flags > 7) LEAVE(CUDA_ERROR_INVALID_VALUE, "%zu", size);
  char *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (bytes == MAP_FAILED) LEAVE(CUDA_ERROR_OUT_OF_MEMORY, "%zu", size);
  *GROW(pinned, pinned_count) = (struct pinned){bytes, size, true};
  *start = bytes;
  LEAVE(CUDA_SUCCESS, "%zu", size);
}

CUresult cuMemFreeHost(void *start) {
  ENTER(NEEDS_CONTEXT);
  LEAVE(unpin(start, true) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE, "");
}
