/*
 * Every call goes through here. `log` in the directory gets a line of it: pid, thread, function, arguments, result.
 * `control` may tell call k of a function, or of all (`*`), counted in each process since the file last changed:
 *
 *   cuMemMap 2 2           answers CUDA_ERROR_OUT_OF_MEMORY and does nothing
 *   cuMemcpyHtoD_v2 1 sticky 700   so does every later call of the process
 *   cuMemCreate 1 kill     the process is killed; `crash`: a segmentation fault; `hang`: for ever, `hang 500`: that
 *                          many ms; `hold`: until `control` is another file
 *   cuMemCreate 1 after kill       the same, once the call has done its work
 */

#include "stand-in.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MAX_ORDERS = 32, MAX_FUNCTIONS = 128 };

struct order {
  char function[64];
  long number;
  bool after;
  char action[16];
  int value;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct order orders[MAX_ORDERS];
static int order_count;
static struct timespec read_at;
static ino_t read_inode;
static struct {
  const char *name;
  long calls;
} functions[MAX_FUNCTIONS];
static int function_count;
static long all_calls;
static CUresult broken;

static void log_line(const char *text) {
  char path[MAX_PATH], line[700];
  if (stand_in_directory() == NULL) return;
  path_of(path, "log");
  const int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd < 0) return;
  const int length = snprintf(line, sizeof line, "%d %ld %s\n", getpid(), syscall(SYS_gettid), text);
  if (write(fd, line, (size_t)length) != length) abort();
  close(fd);
}

static void read_orders(const char *path) {
  char line[256], words[3][16];
  order_count = function_count = 0;
  all_calls = 0;
  FILE *file = fopen(path, "re");
  if (file == NULL) return;
  while (order_count < MAX_ORDERS && fgets(line, sizeof line, file) != NULL) {
    struct order *order = &orders[order_count];
    memset(words, 0, sizeof words);
    const int found =
        sscanf(line, "%63s %ld %15s %15s %15s", order->function, &order->number, words[0], words[1], words[2]);
    if (found < 3) continue;
    order->after = strcmp(words[0], "after") == 0;
    const int first = order->after ? 1 : 0;
    memcpy(order->action, words[first], sizeof order->action);
    order->value = atoi(words[first + 1]);
    order_count++;
  }
  fclose(file);
}

/* Which call this is: of its function, and of all. */
static void count_call(const char *name, long *of_function, long *of_all) {
  int i = 0;
  while (i < function_count && functions[i].name != name) i++;
  if (i == MAX_FUNCTIONS) abort();
  if (i == function_count) {
    functions[function_count].name = name;
    functions[function_count++].calls = 0;
  }
  *of_function = ++functions[i].calls;
  *of_all = ++all_calls;
}

static struct order *find_order(const char *name, long of_function, long of_all, bool after) {
  for (int i = 0; i < order_count; i++) {
    const bool is_all = strcmp(orders[i].function, "*") == 0;
    if (orders[i].after != after || (!is_all && strcmp(orders[i].function, name) != 0)) continue;
    if (orders[i].number == (is_all ? of_all : of_function)) return &orders[i];
  }
  return NULL;
}

static struct stat look_at_control(void) {
  char path[MAX_PATH];
  struct stat status;
  path_of(path, "control");
  if (stat(path, &status) != 0) memset(&status, 0, sizeof status);
  return status;
}

static bool is_same(const struct stat *one, const struct stat *other) {
  return one->st_ino == other->st_ino && one->st_mtim.tv_sec == other->st_mtim.tv_sec &&
         one->st_mtim.tv_nsec == other->st_mtim.tv_nsec;
}

static void hold(const struct stat *before) {
  const struct timespec rest = {0, 2000000L};
  for (struct stat now = *before; is_same(&now, before); now = look_at_control()) nanosleep(&rest, NULL);
}

static CUresult obey(const struct order *order, const char *name) {
  char text[128];
  /* Before anybody is told, and may change it. */
  const struct stat control = look_at_control();
  snprintf(text, sizeof text, "%s ordered: %s %d", name, order->action, order->value);
  log_line(text);
  if (strcmp(order->action, "kill") == 0) kill(getpid(), SIGKILL);
  if (strcmp(order->action, "crash") == 0) {
    /* A real one: a signal handler of the process would meet it as it would meet the driver's. */
    volatile int *nowhere = (volatile int *)(uintptr_t)8;
    *nowhere = 1;
  }
  if (strcmp(order->action, "hang") == 0) {
    if (order->value == 0)
      for (;;) pause();
    const struct timespec rest = {order->value / 1000, order->value % 1000 * 1000000L};
    nanosleep(&rest, NULL);
    return CUDA_SUCCESS;
  }
  if (strcmp(order->action, "hold") == 0) {
    hold(&control);
    return CUDA_SUCCESS;
  }
  if (strcmp(order->action, "sticky") == 0) {
    call_break((CUresult)order->value);
    return (CUresult)order->value;
  }
  return (CUresult)atoi(order->action);
}

void call_break(CUresult result) {
  broken = result;
}

CUresult call_enter(struct call *call, enum needs needs) {
  char path[MAX_PATH];
  struct stat status;
  struct order order, *found = NULL;
  long of_function, of_all;
  pthread_mutex_lock(&mutex);
  if (stand_in_directory() != NULL) {
    path_of(path, "control");
    if (stat(path, &status) != 0) memset(&status, 0, sizeof status);
    const bool is_same = status.st_ino == read_inode && status.st_mtim.tv_sec == read_at.tv_sec &&
                         status.st_mtim.tv_nsec == read_at.tv_nsec;
    if (!is_same) {
      read_at = status.st_mtim;
      read_inode = status.st_ino;
      read_orders(path);
    }
  }
  count_call(call->name, &of_function, &of_all);
  call->number = of_function;
  found = find_order(call->name, of_function, of_all, false);
  if (found != NULL) order = *found;
  pthread_mutex_unlock(&mutex);
  const CUresult ordered = found == NULL ? CUDA_SUCCESS : obey(&order, call->name);
  if (ordered != CUDA_SUCCESS) return ordered;
  if (broken != CUDA_SUCCESS && needs != NEEDS_NOTHING) return broken;
  if (needs != NEEDS_NOTHING && !is_initialised()) return CUDA_ERROR_NOT_INITIALIZED;
  if (needs == NEEDS_CONTEXT && current_device() == NULL) return CUDA_ERROR_INVALID_CONTEXT;
  return CUDA_SUCCESS;
}

CUresult call_leave(const struct call *call, CUresult result, const char *format, ...) {
  char text[512];
  struct order order, *found;
  va_list list;
  int length = snprintf(text, sizeof text, "%s", call->name);
  if (*format != '\0') text[length++] = ' ';
  va_start(list, format);
  length += vsnprintf(text + length, sizeof text - 64 - (size_t)length, format, list);
  va_end(list);
  snprintf(text + length, sizeof text - (size_t)length, " = %d", (int)result);
  log_line(text);
  pthread_mutex_lock(&mutex);
  found = find_order(call->name, call->number, -1, true);
  if (found != NULL) order = *found;
  pthread_mutex_unlock(&mutex);
  if (found != NULL) obey(&order, call->name);
  return result;
}
