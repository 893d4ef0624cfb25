/* A stand-in for libcuda.so.1: device memory is host memory, a stream does its work at once and in order, captures are
   recorded and replayed. It keeps count of what a driver would leave undefined: leaks, double frees, use after free. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, NOT_CAPTURING = 901 };
enum { MOST = 65536, MOST_OPS = 256 };

typedef struct { char *at; size_t size; int alive; int device; } Block;
typedef struct { int kind; void *to; const void *from; size_t size; void (*call)(void *); void *data; } Op;
typedef struct { Op ops[MOST_OPS]; int count; int alive; } Graph;

static Block blocks[MOST];
static int block_count;
static int counts[16]; /* see standin_count */
enum { ALLOCATED, FREED, DOUBLE_FREED, AFTER_FREE, GRAPHS_ALIVE, LAUNCHES, CONTEXTS, STREAMS, WRONG_CONTEXT, CAPTURES,
       SYNCHRONISED, PINNED_ALIVE, DEVICE_ALIVE };
static size_t limit = (size_t)1 << 34, used;
static Graph *capturing;

int standin_count(int what) { return counts[what]; }
void standin_limit(size_t bytes) { limit = bytes; }
size_t standin_used(void) { return used; }

/* Memory is never given back, but overwritten, so that a use after free is seen and does not crash. */
static int allocate(char **out, size_t size, int device) {
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
  Block *b = block_of(p);
  if (!b || (char *)p + size > b->at + b->size) return 0;
  if (!b->alive) { counts[AFTER_FREE]++; return 0; }
  return 1;
}

/* For the engine of the tests: whether an address and the bytes behind it may be used. */
int standin_usable(const void *p, size_t size) { return usable(p, size); }

static int perform(const Op *op) {
  if (op->kind == 0) {
    if (!usable(op->to, op->size) || !usable(op->from, op->size)) return INVALID;
    memcpy(op->to, op->from, op->size);
  } else {
    op->call(op->data);
  }
  return OK;
}

static int submit(Op op) {
  if (!counts[CONTEXTS]) { counts[WRONG_CONTEXT]++; return 201; }
  if (!capturing) return perform(&op);
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
static int cuStreamSynchronize(void *s) { counts[SYNCHRONISED]++; return capturing ? 900 : OK; }
static int cuMemAlloc(uint64_t *p, size_t n) { return capturing ? 900 : allocate((char **)p, n, 1); }
static int cuMemFree(uint64_t p) { return give_back((void *)p, 1); }
static int cuMemHostAlloc(void **p, size_t n, unsigned flags) { return allocate((char **)p, n, 0); }
static int cuMemFreeHost(void *p) { return give_back(p, 0); }
static int cuMemcpyHtoDAsync(uint64_t to, const void *from, size_t n, void *s) {
  return submit((Op){.to = (void *)to, .from = from, .size = n});
}
static int cuMemcpyDtoHAsync(void *to, uint64_t from, size_t n, void *s) {
  return submit((Op){.to = to, .from = (void *)from, .size = n});
}
int cuLaunchHostFunc(void *s, void (*call)(void *), void *data) {
  return submit((Op){.kind = 1, .call = call, .data = data});
}
static int cuStreamBeginCapture(void *s, int mode) {
  if (capturing || mode != 1 /* thread-local */) return INVALID;
  capturing = calloc(1, sizeof(Graph));
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
  for (int i = 0; i < g->count; i++) {
    int status = perform(&g->ops[i]);
    if (status) return status;
  }
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
    HERE(cuGraphExecDestroy), HERE(cuGraphLaunch),
    {"cuGraphInstantiateWithFlags", (void *)cuGraphInstantiate},
};

int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
  *function = !strcmp(name, "cuGetProcAddress") ? (void *)cuGetProcAddress_v2 : NULL;
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
    if (!strcmp(name, functions[i].name)) *function = functions[i].function;
  if (status) *status = *function ? 0 : 1;
  return OK;
}
