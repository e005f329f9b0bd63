// What cuda_runtime.h declares: device memory, and launches in several orders of threads. Linked to a
// .cu file that has a main. Python gives in the environment
//
//     EMU_SHARED: "offset size name" of each shared array, a line each; of 0 bytes: dynamic memory
//     EMU_REPORT: the file descriptor that takes a fault: the kernel, and in a new line "kind|message"

#define EMU_PROGRAM
#include "runtime.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <string>

constexpr int MAX_ARRAYS = 1024;
constexpr unsigned ORDERS = 3;  // as Module's default

static Region arrays[MAX_ARRAYS];
static int n_arrays;
static Region *dynamic;
static size_t most_dynamic = 48 << 10;
static char *stack_memory;
extern "C" const size_t emu_stack_bytes;

// Ends the program with a report.
[[noreturn]] static void report(const char *kernel, const char *fault) {
    fflush(nullptr);
    const std::string text = std::string(kernel) + "\n" + fault + "\n";
    const char *descriptor = getenv("EMU_REPORT");
    ssize_t written = write(descriptor ? atoi(descriptor) : 2, text.data(), text.size());
    _exit(written < 0 ? 2 : 1);
}

__attribute__((constructor)) static void watch_host() {
    host_fault = [](const char *text) { report("host", text); };
}

static void begin() {
    if (stack_memory) return;
    stack_memory = (char *)mmap(nullptr, emu_stack_bytes, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack_memory == MAP_FAILED || !open_arena(arrays, MAX_ARRAYS))
        report("host", "memory|no address space for the device's memory");
    static Region shared[1 << 12];
    int n = 0;
    const char *text = getenv("EMU_SHARED");
    while (text && *text && n < 1 << 12) {
        unsigned long long offset, size;
        char name[200];
        if (sscanf(text, "%llu %llu %199[^\n]", &offset, &size, name) != 3) break;
        shared[n] = {};
        shared[n].name = strdup(name);
        shared[n].offset = offset;
        shared[n].size = size;
        if (size == 0) dynamic = &shared[n];
        n++;
        text += strcspn(text, "\n");
        text += *text == '\n';
    }
    if (!dynamic) report("host", "memory|EMU_SHARED is not set: run it by gru4rec_np.emulate");
    open_shared(shared, n, dynamic->offset);
}

// --- memory ---------------------------------------------------------------------------------------

cudaError_t emu_malloc(void **pointer, size_t size, int item, int managed, const char *expression) {
    begin();
    int i = n_arrays;
    if (n_arrays < MAX_ARRAYS) n_arrays++;
    else
        for (i = 0; i < MAX_ARRAYS && !arrays[i].freed;) i++;
    if (i == MAX_ARRAYS) report("host", "memory|more than 1024 arrays at a time");
    const char *name = strrchr(expression, '&');
    Region &r = arrays[i] = {};
    r.name = strdup(name ? name + 1 : expression);
    r.size = size;
    r.item = item;
    r.managed = managed;
    if (!open_global(i)) {
        r.freed = 1;
        return cudaErrorMemoryAllocation;
    }
    // NaN as a float, and an index out of bounds, if it is read without having been written.
    memset(r.begin, 0xff, size);
    if (!managed) r.written = (char *)calloc(size + 1, 1);
    *pointer = r.begin;
    return cudaSuccess;
}

cudaError_t cudaFree(void *pointer, const char *file, int line) {
    if (pointer == nullptr) return cudaSuccess;
    Region *r = find_global(pointer);
    if (!r || r->freed || r->begin != pointer)
        fault("free", "cudaFree at <at %s:%d> of %p, which %s", file, line, pointer,
              r && r->freed ? "is freed already" : "cudaMalloc did not return");
    close_global(*r);
    free(r->written);
    r->written = nullptr;
    r->freed = 1;
    return cudaDeviceSynchronize();
}

// The array of the device that all of p[0 .. size) lies in; null for memory of the host.
static Region *array_of(const void *p, size_t size, const char *call, const char *file, int line) {
    Region *r = find_global(p);
    if (r && (r->freed || p < r->begin || (char *)p + size > r->end))
        fault("out of bounds", "%s at <at %s:%d> of %zu bytes: %s", call, file, line, size,
              place(*r, (char *)p).text);
    return r;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t size, cudaMemcpyKind kind,
                       const char *file, int line) {
    begin();
    if (size == 0) return cudaSuccess;
    Region *target = array_of(to, size, "cudaMemcpy", file, line);
    Region *source = array_of(from, size, "cudaMemcpy", file, line);
    const struct { Region *array; bool on_device; const char *what; } ends[] = {
        {target, kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice, "target"},
        {source, kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice, "source"}};
    for (auto &end : ends) {
        if (kind == cudaMemcpyDefault || (end.array && end.array->managed)) continue;
        if ((end.array != nullptr) != end.on_device)
            fault("wrong memory", "cudaMemcpy at <at %s:%d>: its kind says that the %s is memory of "
                  "the %s, and it is not", file, line, end.what, end.on_device ? "device" : "host");
    }
    memmove(to, from, size);
    if (target && target->written) {
        char *written = target->written + ((char *)to - target->begin);
        if (source && source->written)
            memmove(written, source->written + ((char *)from - source->begin), size);
        else
            memset(written, 1, size);
    }
    return cudaDeviceSynchronize();
}

cudaError_t cudaMemset(void *to, int value, size_t size, const char *file, int line) {
    begin();
    if (size == 0) return cudaSuccess;
    Region *target = array_of(to, size, "cudaMemset", file, line);
    if (!target) fault("wrong memory", "cudaMemset at <at %s:%d> of memory of the host", file, line);
    memset(to, value, size);
    if (target->written) memset(target->written + ((char *)to - target->begin), 1, size);
    return cudaSuccess;
}

cudaError_t emu_symbol(void *to, const void *from, size_t whole, size_t size, size_t offset,
                       const char *file, int line) {
    begin();
    if (offset + size > whole)
        fault("out of bounds", "copy at <at %s:%d> of %zu bytes from byte %zu on of a variable of %zu",
              file, line, size, offset, whole);
    memcpy(to, from, size);
    return cudaDeviceSynchronize();
}

// --- what g++'s instrumentation calls for std::atomic and virtual functions -------------------------

extern "C" {
#define EMU_NOTE_ATOMIC(T) emu_atomic((void *)p, sizeof(T), __builtin_return_address(0))
#define EMU_TSAN_RMW(bits, T, name)                              \
    T __tsan_atomic##bits##_##name(volatile T *p, T v, int) {    \
        EMU_NOTE_ATOMIC(T);                                      \
        return __atomic_##name(p, v, __ATOMIC_SEQ_CST);          \
    }
#define EMU_TSAN_CAS(bits, T, name)                                                              \
    int __tsan_atomic##bits##_compare_exchange_##name(volatile T *p, T *old, T v, int, int) {    \
        EMU_NOTE_ATOMIC(T);                                                                      \
        return __atomic_compare_exchange_n(p, old, v, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);    \
    }
#define __atomic_exchange __atomic_exchange_n
#define EMU_TSAN_ATOMIC(bits, T)                                                      \
    T __tsan_atomic##bits##_load(const volatile T *p, int) {                          \
        EMU_NOTE_ATOMIC(T);                                                           \
        return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                  \
    }                                                                                 \
    void __tsan_atomic##bits##_store(volatile T *p, T v, int) {                       \
        EMU_NOTE_ATOMIC(T);                                                           \
        __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                                     \
    }                                                                                 \
    EMU_TSAN_RMW(bits, T, exchange) EMU_TSAN_RMW(bits, T, fetch_add)                  \
    EMU_TSAN_RMW(bits, T, fetch_sub) EMU_TSAN_RMW(bits, T, fetch_and)                 \
    EMU_TSAN_RMW(bits, T, fetch_or) EMU_TSAN_RMW(bits, T, fetch_xor)                  \
    EMU_TSAN_CAS(bits, T, strong) EMU_TSAN_CAS(bits, T, weak)
EMU_TSAN_ATOMIC(8, uint8_t) EMU_TSAN_ATOMIC(16, uint16_t) EMU_TSAN_ATOMIC(32, uint32_t)
EMU_TSAN_ATOMIC(64, uint64_t)
void __tsan_atomic_thread_fence(int) {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
}

// --- the device, its errors, events ---------------------------------------------------------------

cudaError_t cudaDeviceSynchronize() {
    synchronise();
    return cudaSuccess;
}

cudaError_t emu_allow_shared(int size) {
    if (size < 0 || size > MAX_DYNAMIC) return cudaErrorInvalidValue;
    most_dynamic = size;
    return cudaSuccess;
}

const char *cudaGetErrorName(cudaError_t error) {
    return error == cudaSuccess ? "cudaSuccess"
           : error == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation"
                                                : "cudaErrorInvalidValue";
}

const char *cudaGetErrorString(cudaError_t error) {
    return error == cudaSuccess ? "no error"
           : error == cudaErrorMemoryAllocation ? "out of memory"
                                                : "invalid argument";
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int) {
    *properties = {"emulated", 1ull << 31, 48 << 10, warpSize, MAX_THREADS, 1, 8, 0};
    return cudaSuccess;
}

struct EmuEvent { timespec at; };

cudaError_t cudaEventCreate(cudaEvent_t *event) {
    *event = new EmuEvent();
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
    clock_gettime(CLOCK_MONOTONIC, &event->at);
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaDeviceSynchronize(); }
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to) {
    *milliseconds = (to->at.tv_sec - from->at.tv_sec) * 1e3 +
                    (to->at.tv_nsec - from->at.tv_nsec) * 1e-6;
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}

// --- launches -------------------------------------------------------------------------------------

// A number for the contents of an array.
static uint64_t digest(const Region &r) {
    uint64_t sum = r.size;
    for (uint64_t i = 0; i < r.size; i += 8) {
        uint64_t word = 0;
        memcpy(&word, r.begin + i, r.size - i < 8 ? r.size - i : 8);
        sum = (sum ^ word) * 0x9e3779b97f4a7c15;
        sum ^= sum >> 29;
    }
    return sum;
}

static std::string digests() {
    std::string all;
    for (int i = 0; i < n_arrays; i++) {
        uint64_t sum = arrays[i].freed ? 0 : digest(arrays[i]);
        all.append((const char *)&sum, sizeof sum);
    }
    return all;
}

// What a copy of this process finds that runs the launch in another order: a fault, or digests. The
// memory of this process stays as it is, __device__ variables included.
template <class Run> static std::string in_another_process(Run run) {
    int ends[2];
    fflush(nullptr);
    if (pipe(ends)) report("host", "memory|no pipe for a launch in another order");
    const pid_t child = fork();
    if (child < 0) report("host", "memory|no process for a launch in another order");
    if (child == 0) {
        if (!freopen("/dev/null", "w", stdout)) _exit(1);  // what a kernel prints is printed once
        const char *fault = run();
        const std::string text = fault ? fault : "=" + digests();
        _exit(write(ends[1], text.data(), text.size()) < 0);
    }
    close(ends[1]);
    std::string text;
    char part[4096];
    for (ssize_t n; (n = read(ends[0], part, sizeof part)) > 0;) text.append(part, n);
    close(ends[0]);
    waitpid(child, nullptr, 0);
    return text.empty() ? "order|in another order of threads the launch crashes" : text;
}

void emu_program_launch(const char *name, void (*run)(void **), void *call, dim3 grid, dim3 block,
                        size_t bytes, const char *file, int line) {
    begin();
    const uint64_t most = 0x7fffffff, n = (uint64_t)block.x * block.y * block.z;
    if (n == 0 || n > MAX_THREADS || block.z > 64 || grid.x == 0 || grid.x > most || grid.y == 0 ||
        grid.y > 65535 || grid.z == 0 || grid.z > 65535)
        fault("launch", "%s at <at %s:%d> with a grid of (%u, %u, %u) and a block of (%u, %u, %u)",
              name, file, line, grid.x, grid.y, grid.z, block.x, block.y, block.z);
    if (bytes > most_dynamic)
        fault("launch", "%s at <at %s:%d> with %zu bytes of dynamic shared memory, more than %zu",
              name, file, line, bytes, most_dynamic);
    dynamic->size = bytes;
    dynamic->end = dynamic->begin + bytes;

    const EmuKernel kernel = {name, run, nullptr, 0};
    const unsigned sizes[2][3] = {{grid.x, grid.y, grid.z}, {block.x, block.y, block.z}};
    auto in_order = [&](unsigned seed) {
        return check_launch(&kernel, sizes[0], sizes[1], (void **)call, stack_memory, seed);
    };
    std::string others[ORDERS];
    for (unsigned seed = 1; seed < ORDERS; seed++)
        others[seed] = in_another_process([&] { return in_order(seed); });
    if (const char *fault = in_order(0)) report(name, fault);
    const std::string own = "=" + digests();
    for (unsigned seed = 1; seed < ORDERS; seed++) {
        if (others[seed] == own) continue;
        if (others[seed][0] != '=') report(name, others[seed].c_str());
        for (int i = 0; i < n_arrays && !used_atomics; i++)
            if (own.compare(1 + 8 * i, 8, others[seed], 1 + 8 * i, 8) != 0)
                report(name, (std::string("order|the order of threads changes ") +
                              arrays[i].name).c_str());
    }
}
