// The runtime calls of a program with a main of its own: memory, events, launches. program.cpp has
// those that are not here. Everything is done at once, in the order of the calls. A call that cannot
// be right ends the program with a report, so nearly all return cudaSuccess.
#pragma once

#include "emulated.h"

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
};
enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
constexpr unsigned cudaMemAttachGlobal = 1;
typedef struct EmuStream *cudaStream_t;  // null: the only stream
struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlock;
    int warpSize, maxThreadsPerBlock, multiProcessorCount, major, minor;
};

// --- memory ---------------------------------------------------------------------------------------

extern "C" {
// `expression` is the first argument's text, from which messages take the array's name.
cudaError_t emu_malloc(void **pointer, size_t size, int item, int managed, const char *expression);
cudaError_t cudaFree(void *pointer, EMU_LINE);
cudaError_t cudaMemcpy(void *to, const void *from, size_t size, cudaMemcpyKind kind, EMU_LINE);
cudaError_t cudaMemset(void *to, int value, size_t size, EMU_LINE);
// A piece of a __device__ or __constant__ variable of `whole` bytes.
cudaError_t emu_symbol(void *to, const void *from, size_t whole, size_t size, size_t offset,
                       const char *file, int line);
cudaError_t cudaDeviceSynchronize();
cudaError_t emu_allow_shared(int size);
const char *cudaGetErrorString(cudaError_t error);
const char *cudaGetErrorName(cudaError_t error);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device);
}

EMU_INLINE int emu_item(void **) { return 1; }
template <class T> EMU_INLINE int emu_item(T **) { return sizeof(T); }
#define cudaMalloc(pointer, size) \
    emu_malloc((void **)(pointer), size, emu_item(pointer), 0, #pointer)
#define cudaMallocManaged(pointer, size, ...) \
    emu_malloc((void **)(pointer), size, emu_item(pointer), 1, #pointer)
// The device can use pinned memory of the host, too.
#define cudaMallocHost(pointer, size) cudaMallocManaged(pointer, size)

EMU_INLINE cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, cudaMemcpyKind kind,
                                       cudaStream_t = nullptr, EMU_LINE) {
    return cudaMemcpy(to, from, size, kind, file, line);
}
EMU_INLINE cudaError_t cudaMemsetAsync(void *to, int value, size_t size, cudaStream_t = nullptr,
                                       EMU_LINE) {
    return cudaMemset(to, value, size, file, line);
}
template <class T>
EMU_INLINE cudaError_t cudaMemcpyToSymbol(T &symbol, const void *from, size_t size, size_t offset = 0,
                                          cudaMemcpyKind = cudaMemcpyHostToDevice, EMU_LINE) {
    return emu_symbol((char *)&symbol + offset, from, sizeof symbol, size, offset, file, line);
}
template <class T>
EMU_INLINE cudaError_t cudaMemcpyFromSymbol(void *to, const T &symbol, size_t size, size_t offset = 0,
                                            cudaMemcpyKind = cudaMemcpyDeviceToHost, EMU_LINE) {
    return emu_symbol(to, (const char *)&symbol + offset, sizeof symbol, size, offset, file, line);
}
EMU_INLINE cudaError_t cudaFreeHost(void *pointer, EMU_LINE) {
    return cudaFree(pointer, file, line);
}

// --- the device, its errors, events ---------------------------------------------------------------

EMU_INLINE cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaDeviceSynchronize(); }
EMU_INLINE cudaError_t cudaGetLastError() { return cudaSuccess; }
EMU_INLINE cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
EMU_INLINE cudaError_t cudaSetDevice(int) { return cudaSuccess; }
EMU_INLINE cudaError_t cudaGetDevice(int *device) { return *device = 0, cudaSuccess; }
EMU_INLINE cudaError_t cudaGetDeviceCount(int *count) { return *count = 1, cudaSuccess; }
EMU_INLINE cudaError_t cudaDeviceReset() { return cudaSuccess; }
template <class F>
EMU_INLINE cudaError_t cudaFuncSetAttribute(F, cudaFuncAttribute, int size) {
    return emu_allow_shared(size);
}

typedef struct EmuEvent *cudaEvent_t;
extern "C" {
cudaError_t cudaEventCreate(cudaEvent_t *event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t = nullptr);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to);
cudaError_t cudaEventDestroy(cudaEvent_t event);
}

// --- launches -------------------------------------------------------------------------------------
// build.py turns kernel<<<configuration>>>(arguments) into
//
//     EmuLauncher(configuration)("kernel", [=](auto... a) { kernel(a...); }, arguments)
//
// so that the arguments are evaluated once, and C++ finds the template or overload.

#define EMU_UNCHECKED __attribute__((no_sanitize("thread")))

extern "C" void emu_program_launch(const char *name, void (*run)(void **), void *call, dim3 grid,
                                   dim3 block, size_t shared, const char *file, int line);

struct EmuLauncher {
    dim3 grid, block;
    size_t shared;
    const char *file;
    int line;
    EMU_UNCHECKED EmuLauncher(dim3 grid, dim3 block, size_t shared = 0, cudaStream_t = nullptr,
                              EMU_LINE)
        : grid(grid), block(block), shared(shared), file(file), line(line) {}

    template <class F, class... A>
    EMU_UNCHECKED void operator()(const char *name, F kernel, A... arguments) const {
        auto call = [=]() EMU_UNCHECKED { kernel(arguments...); };
        void (*run)(void **) = [](void **call_) EMU_UNCHECKED { (*(decltype(call) *)call_)(); };
        emu_program_launch(name, run, &call, grid, block, shared, file, line);
    }
};
