/* A stand-in for libcuda.so.1: device memory is host memory; a stream does its work in order, and as late as it may:
   when somebody waits for it, so that what is read without waiting is seen to be wrong. Captures are recorded and
   replayed. It keeps count of what a driver would leave undefined: leaks, double frees, use after free. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, NOT_CAPTURING = 901 };
enum { MOST = 65536, MOST_OPS = 4096 };

typedef struct { char *at; size_t size; int alive; int device; } Block;
enum { COPY, CALL, FILL, MARK };
typedef struct { int kind; void *to; const void *from; size_t size; void (*call)(void *); void *data; } Op;
typedef struct { Op ops[MOST_OPS]; int count; int alive; } Graph;

static Block blocks[MOST];
static int block_count;
static int counts[20]; /* see standin_count */
enum { ALLOCATED, FREED, DOUBLE_FREED, AFTER_FREE, GRAPHS_ALIVE, LAUNCHES, CONTEXTS, STREAMS, WRONG_CONTEXT, CAPTURES,
       SYNCHRONISED, PINNED_ALIVE, DEVICE_ALIVE, EVENTS_ALIVE, WAITED, TO_HOST };
static size_t limit = (size_t)1 << 34, used;
static Graph *capturing;
static pthread_t capturer;
/* One for everything; recursive, as a stream's work may call back into here. */
static pthread_mutex_t mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
#define LOCKED __attribute__((cleanup(unlock))) int locked = pthread_mutex_lock(&mutex)
static void unlock(int *ignored) { pthread_mutex_unlock(&mutex); }
/* In thread-local mode, other threads may do what would spoil the capture. */
static int spoils(void) { return capturing && pthread_equal(capturer, pthread_self()); }
static Op *queue; /* the stream's work that is still to be done */
static size_t queued, room, done_so_far;

int standin_count(int what) { return counts[what]; }
void standin_limit(size_t bytes) { limit = bytes; }
size_t standin_used(void) { return used; }

/* Memory is never given back, but overwritten, so that a use after free is seen and does not crash. */
static int allocate(char **out, size_t size, int device) {
  LOCKED;
  if (!size || block_count == MOST) return INVALID;
  if (device && used + size > limit) return OUT_OF_MEMORY;
  char *at = aligned_alloc(256, (size + 255) / 256 * 256);
  memset(at, 0xA5, size);
  blocks[block_count++] = (Block){at, size, 1, device};
  counts[ALLOCATED]++;
  counts[device ? DEVICE_ALIVE : PINNED_ALIVE]++;
  if (device) used += size;
  *out = at;
  return OK;
}

static Block *block_of(const void *p) {
  for (int i = block_count - 1; i >= 0; i--)
    if ((char *)p >= blocks[i].at && (char *)p < blocks[i].at + blocks[i].size) return &blocks[i];
  return NULL;
}

static int give_back(void *p, int device) {
  LOCKED;
  Block *b = block_of(p);
  if (!b || b->at != p || b->device != device) return INVALID;
  if (!b->alive) { counts[DOUBLE_FREED]++; return INVALID; }
  b->alive = 0;
  memset(b->at, 0xDD, b->size);
  counts[FREED]++;
  counts[device ? DEVICE_ALIVE : PINNED_ALIVE]--;
  if (device) used -= b->size;
  return OK;
}

static int usable(const void *p, size_t size) {
  LOCKED;
  Block *b = block_of(p);
  if (!b || (char *)p + size > b->at + b->size) return 0;
  if (!b->alive) { counts[AFTER_FREE]++; return 0; }
  return 1;
}

/* For the engine of the tests: whether an address and the bytes behind it may be used. */
int standin_usable(const void *p, size_t size) { return usable(p, size); }

typedef struct { int alive; size_t done; double milliseconds; } Event;

static int perform(const Op *op) {
  if (op->kind == COPY) {
    if (!usable(op->to, op->size) || !usable(op->from, op->size)) return INVALID;
    memmove(op->to, op->from, op->size);
  } else if (op->kind == FILL) {
    if (!usable(op->to, op->size)) return INVALID;
    memset(op->to, 0, op->size);
  } else if (op->kind == CALL) {
    op->call(op->data);
  } else {
    Event *event = op->data;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    event->milliseconds = now.tv_sec * 1e3 + now.tv_nsec / 1e6;
  }
  return OK;
}

/* Do the stream's work up to an operation. Calls into Python may wait in their turn, so the place is kept outside. */
static int work_until(size_t end) {
  LOCKED;
  int status = OK;
  while (done_so_far < end && !status) {
    Op op = queue[done_so_far++];
    status = perform(&op);
  }
  return status;
}

static void put(Op op) {
  LOCKED;
  if (queued == room) queue = realloc(queue, (room = room * 2 + 64) * sizeof(Op));
  queue[queued++] = op;
}

static int submit(Op op) {
  if (!counts[CONTEXTS]) { counts[WRONG_CONTEXT]++; return 201; }
  if (!capturing) { put(op); return OK; }
  if (capturing->count == MOST_OPS) return INVALID;
  capturing->ops[capturing->count++] = op;
  return OK;
}

static int cuInit(unsigned flags) { return flags ? INVALID : OK; }
static int cuDriverGetVersion(int *v) { *v = 13000; return OK; }
static int cuDeviceGetCount(int *n) { *n = 1; return OK; }
static int cuDeviceGet(int *d, int i) { *d = i; return i ? 101 : OK; }
static int cuDeviceGetName(char *name, int n, int d) { strncpy(name, "NVIDIA Stand-in 4090", n); return OK; }
static int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 8 : a == 76 ? 9 : 0; return OK; }
static int cuDevicePrimaryCtxRetain(void **c, int d) { *c = &counts; counts[CONTEXTS]++; return OK; }
static int cuDevicePrimaryCtxRelease(int d) { counts[CONTEXTS]--; return OK; }
static int cuCtxSetCurrent(void *c) { return OK; }
static int cuCtxPushCurrent(void *c) { return OK; }
static int cuCtxPopCurrent(void **c) { *c = NULL; return OK; }
static int cuMemGetInfo(size_t *free, size_t *total) {
  if (!counts[CONTEXTS]) { counts[WRONG_CONTEXT]++; return 201; }
  *free = limit - used;
  *total = limit;
  return OK;
}
static int cuStreamCreate(void **s, unsigned flags) { *s = malloc(8); counts[STREAMS]++; return OK; }
static int cuStreamDestroy(void *s) { free(s); counts[STREAMS]--; return OK; }
static int cuStreamSynchronize(void *s) {
  if (spoils()) return 900;
  counts[SYNCHRONISED]++;
  return work_until(queued);
}
static int cuEventCreate(Event **e, unsigned flags) { *e = calloc(1, sizeof(Event)); (*e)->alive = 1; counts[EVENTS_ALIVE]++; return OK; }
static int cuEventDestroy(Event *e) {
  if (!e->alive) { counts[DOUBLE_FREED]++; return INVALID; }
  e->alive = 0; /* kept, as its mark may still be in the stream */
  counts[EVENTS_ALIVE]--;
  return OK;
}
static int cuEventRecord(Event *e, void *s) {
  LOCKED;
  if (spoils() || !e->alive) return INVALID;
  put((Op){.kind = MARK, .data = e});
  e->done = queued;
  return OK;
}
static int cuEventSynchronize(Event *e) { counts[WAITED]++; return spoils() || !e->alive ? INVALID : work_until(e->done); }
static int cuEventElapsedTime(float *ms, Event *a, Event *b) {
  if (a->done > done_so_far || b->done > done_so_far) return 600; /* not ready */
  *ms = (float)(b->milliseconds - a->milliseconds);
  return OK;
}
static int cuMemAlloc(uint64_t *p, size_t n) { return spoils() ? 900 : allocate((char **)p, n, 1); }
static int cuMemFree(uint64_t p) { work_until(queued); return give_back((void *)p, 1); }
static int cuMemsetD8Async(uint64_t to, unsigned char value, size_t n, void *s) {
  return value ? INVALID : submit((Op){.kind = FILL, .to = (void *)to, .size = n});
}
static int cuMemcpyDtoDAsync(uint64_t to, uint64_t from, size_t n, void *s) {
  return submit((Op){.to = (void *)to, .from = (void *)from, .size = n});
}
static int cuMemHostAlloc(void **p, size_t n, unsigned flags) { return allocate((char **)p, n, 0); }
static int cuMemFreeHost(void *p) { return give_back(p, 0); }
static int cuMemcpyHtoDAsync(uint64_t to, const void *from, size_t n, void *s) {
  return submit((Op){.to = (void *)to, .from = from, .size = n});
}
static int cuMemcpyDtoHAsync(void *to, uint64_t from, size_t n, void *s) {
  counts[TO_HOST] += n;
  return submit((Op){.to = to, .from = (void *)from, .size = n});
}
int cuLaunchHostFunc(void *s, void (*call)(void *), void *data) {
  return submit((Op){.kind = CALL, .call = call, .data = data});
}
static int cuStreamBeginCapture(void *s, int mode) {
  if (capturing || mode != 1 /* thread-local */) return INVALID;
  capturing = calloc(1, sizeof(Graph));
  capturer = pthread_self();
  return OK;
}
static int cuStreamEndCapture(void *s, void **graph) {
  if (!capturing) return NOT_CAPTURING;
  *graph = capturing;
  capturing = NULL;
  counts[CAPTURES]++;
  counts[GRAPHS_ALIVE]++;
  return OK;
}
static int cuGraphInstantiate(void **exec, Graph *graph, unsigned long long flags) {
  Graph *copy = malloc(sizeof(Graph));
  *copy = *graph;
  copy->alive = 1;
  *exec = copy;
  counts[GRAPHS_ALIVE]++;
  return OK;
}
static int cuGraphDestroy(Graph *g) { counts[GRAPHS_ALIVE]--; return OK; }
static int cuGraphExecDestroy(Graph *g) {
  if (!g->alive) { counts[DOUBLE_FREED]++; return INVALID; }
  g->alive = 0;
  counts[GRAPHS_ALIVE]--;
  return OK;
}
static int cuGraphLaunch(Graph *g, void *s) {
  if (!g->alive) { counts[AFTER_FREE]++; return INVALID; }
  counts[LAUNCHES]++;
  LOCKED;
  for (int i = 0; i < g->count; i++) put(g->ops[i]);
  return OK;
}

#define HERE(name) {#name, (void *)name}
static const struct { const char *name; void *function; } functions[] = {
    HERE(cuInit), HERE(cuDriverGetVersion), HERE(cuDeviceGetCount), HERE(cuDeviceGet), HERE(cuDeviceGetName),
    HERE(cuDeviceGetAttribute), HERE(cuDevicePrimaryCtxRetain), HERE(cuDevicePrimaryCtxRelease), HERE(cuCtxSetCurrent),
    HERE(cuCtxPushCurrent), HERE(cuCtxPopCurrent), HERE(cuMemGetInfo),
    HERE(cuStreamCreate), HERE(cuStreamDestroy), HERE(cuStreamSynchronize), HERE(cuMemAlloc), HERE(cuMemFree),
    HERE(cuMemHostAlloc), HERE(cuMemFreeHost), HERE(cuMemcpyHtoDAsync), HERE(cuMemcpyDtoHAsync), HERE(cuLaunchHostFunc),
    HERE(cuStreamBeginCapture), HERE(cuStreamEndCapture), HERE(cuGraphInstantiate), HERE(cuGraphDestroy),
    HERE(cuGraphExecDestroy), HERE(cuGraphLaunch), HERE(cuEventCreate), HERE(cuEventDestroy), HERE(cuEventRecord),
    HERE(cuEventSynchronize), HERE(cuEventElapsedTime), HERE(cuMemsetD8Async), HERE(cuMemcpyDtoDAsync),
    {"cuGraphInstantiateWithFlags", (void *)cuGraphInstantiate},
};

int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
  *function = !strcmp(name, "cuGetProcAddress") ? (void *)cuGetProcAddress_v2 : NULL;
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
    if (!strcmp(name, functions[i].name)) *function = functions[i].function;
  if (status) *status = *function ? 0 : 1;
  return OK;
}
