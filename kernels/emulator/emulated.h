// CUDA's language and intrinsics in C++, for g++. build.py puts it before a .cu file.
//
// A thread of a block is a fiber (runtime.cpp). Whatever one thread needs of another is a call into
// the runtime. Calls that can cause a fault get the caller's line by a default argument.
#pragma once

#ifndef EMU_RUNTIME
// For kernels alone C's headers and the overloads below: <cmath> would double the time to compile.
#ifndef EMU_PROGRAM
#define _GLIBCXX_INCLUDE_NEXT_C_HEADERS
#endif
#include <math.h>
#include <stdlib.h>
#undef _GLIBCXX_INCLUDE_NEXT_C_HEADERS
#endif
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#if defined EMU_CHECKS && !defined EMU_RUNTIME
// Calls of these go to checks.cpp, which looks at the whole range.
extern "C" {
void *memcpy(void *, const void *, size_t) noexcept __asm__("emu_memcpy");
void *memmove(void *, const void *, size_t) noexcept __asm__("emu_memmove");
void *memset(void *, int, size_t) noexcept __asm__("emu_memset");
}
#endif

// --- the language ---------------------------------------------------------------------------------

// emu_global means nothing to g++: build.py finds kernels by it.
#define __global__ __attribute__((noinline, emu_global))
#define __device__
#define __host__
#define __constant__
// All fibers are one thread of the CPU, so thread_local memory is shared by them; its address range
// is known. `extern __shared__` arrays are labels on one part of it, which build.py adds.
#define __shared__ thread_local
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
// __noinline__ is made an attribute by build.py: as a macro it would change libstdc++'s headers.
#define __align__(n) __attribute__((aligned(n)))
#define __CUDACC__ 1
#define __CUDA_ARCH__ 800

#define EMU_LINE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define EMU_INLINE inline __attribute__((always_inline))

// --- built-in types and variables -----------------------------------------------------------------

#define EMU_VECTORS(T, base, align2, align4)                                            \
    struct alignas(align2) T##2 { base x, y; };                                         \
    struct T##3 { base x, y, z; };                                                      \
    struct alignas(align4) T##4 { base x, y, z, w; };                                   \
    EMU_INLINE T##2 make_##T##2(base x, base y) { return {x, y}; }                      \
    EMU_INLINE T##3 make_##T##3(base x, base y, base z) { return {x, y, z}; }           \
    EMU_INLINE T##4 make_##T##4(base x, base y, base z, base w) { return {x, y, z, w}; }
EMU_VECTORS(char, signed char, 2, 4)
EMU_VECTORS(uchar, unsigned char, 2, 4)
EMU_VECTORS(short, short, 4, 8)
EMU_VECTORS(ushort, unsigned short, 4, 8)
EMU_VECTORS(int, int, 8, 16)
EMU_VECTORS(uint, unsigned, 8, 16)
EMU_VECTORS(longlong, long long, 16, 16)
EMU_VECTORS(ulonglong, unsigned long long, 16, 16)
EMU_VECTORS(float, float, 8, 16)
EMU_VECTORS(double, double, 16, 16)
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};

// Constant for kernels, so that the compiler may keep them in registers; the runtime sets them at
// each switch of fibers.
#ifndef EMU_RUNTIME
#define EMU_CONSTANT const
#else
#define EMU_CONSTANT
#endif
extern "C" EMU_CONSTANT uint3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

// --- threads that wait for one another (runtime.cpp) ----------------------------------------------

extern "C" {
// Waits for the block. Returns how many of its threads gave a `vote` other than zero.
int emu_barrier(int vote, const char *file, int line);
// Waits for the threads of the warp in `mask`. Returns the `value` of thread `source` of the warp,
// and a bit for each thread whose value is not zero.
struct EmuWarp { uint64_t value; unsigned ballot; };
EmuWarp emu_warp(const char *what, unsigned mask, uint64_t value, int source, const char *file,
                 int line);
int emu_in_warp();  // the calling thread's place in its warp
// With checks only: notes an atomic operation before it happens.
void emu_atomic(void *address, int size, void *pc);
}

EMU_INLINE void __syncthreads(EMU_LINE) { emu_barrier(0, file, line); }
EMU_INLINE int __syncthreads_count(int p, EMU_LINE) { return emu_barrier(p != 0, file, line); }
EMU_INLINE int __syncthreads_or(int p, EMU_LINE) { return emu_barrier(p != 0, file, line) > 0; }
EMU_INLINE int __syncthreads_and(int p, EMU_LINE) { return emu_barrier(p == 0, file, line) == 0; }
EMU_INLINE void __syncwarp(unsigned mask = 0xffffffff, EMU_LINE) {
    emu_warp("__syncwarp", mask, 0, -1, file, line);
}
EMU_INLINE unsigned __ballot_sync(unsigned mask, int p, EMU_LINE) {
    return emu_warp("__ballot_sync", mask, p != 0, -1, file, line).ballot;
}
EMU_INLINE int __any_sync(unsigned mask, int p, EMU_LINE) {
    return emu_warp("__any_sync", mask, p != 0, -1, file, line).ballot != 0;
}
EMU_INLINE int __all_sync(unsigned mask, int p, EMU_LINE) {
    return emu_warp("__all_sync", mask, p == 0, -1, file, line).ballot == 0;
}

template <class T>
EMU_INLINE T emu_shuffle(const char *what, unsigned mask, T value, int source, const char *file,
                         int line) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    uint64_t bits = 0;
    __builtin_memcpy(&bits, &value, sizeof(T));
    bits = emu_warp(what, mask, bits, source, file, line).value;
    __builtin_memcpy(&value, &bits, sizeof(T));
    return value;
}
// `from` is the thread of the warp to read from, within the caller's group of `width` threads.
template <class T>
EMU_INLINE T __shfl_sync(unsigned mask, T value, int from, int width = 32, EMU_LINE) {
    int first = emu_in_warp() & -width;
    return emu_shuffle("__shfl_sync", mask, value, first + (from & (width - 1)), file, line);
}
template <class T>
EMU_INLINE T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, EMU_LINE) {
    int own = emu_in_warp(), from = own - (int)by;
    return emu_shuffle("__shfl_up_sync", mask, value, from < (own & -width) ? own : from, file,
                       line);
}
template <class T>
EMU_INLINE T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, EMU_LINE) {
    int own = emu_in_warp(), from = own + (int)by, end = (own & -width) + width;
    return emu_shuffle("__shfl_down_sync", mask, value, from >= end ? own : from, file, line);
}
template <class T>
EMU_INLINE T __shfl_xor_sync(unsigned mask, T value, int by, int width = 32, EMU_LINE) {
    int own = emu_in_warp(), from = own ^ by, end = (own & -width) + width;
    return emu_shuffle("__shfl_xor_sync", mask, value, from >= end ? own : from, file, line);
}

#ifndef EMU_RUNTIME  // from here on, what only kernels need

// --- atomics --------------------------------------------------------------------------------------
// Threads run one at a time, so plain reads and writes are atomic. With checks the functions are not
// inlined, so that they are not instrumented and their return address is in the kernel.

#ifdef EMU_CHECKS
#define EMU_ATOMIC inline __attribute__((noinline, no_sanitize("thread")))
#define EMU_NOTE(p) emu_atomic((void *)p, sizeof *p, __builtin_return_address(0))
#else
#define EMU_ATOMIC EMU_INLINE
#define EMU_NOTE(p) (void)0
#endif

// name(T *, T) for one T. `old` is the value before, which is returned; `v` is the argument.
#define EMU_RMW(name, T, result)              \
    EMU_ATOMIC T name(T *p, T v) {            \
        EMU_NOTE(p);                          \
        T old = *p;                           \
        *p = (result);                        \
        return old;                           \
    }                                         \
    EMU_INLINE T name##_block(T *p, T v) { return name(p, v); }
#define EMU_RMW_INTEGERS(name, result)        \
    EMU_RMW(name, int, result)                \
    EMU_RMW(name, unsigned, result)           \
    EMU_RMW(name, unsigned long long, result)
EMU_RMW_INTEGERS(atomicAdd, old + v)
EMU_RMW(atomicAdd, float, old + v)
EMU_RMW(atomicAdd, double, old + v)
EMU_RMW(atomicSub, int, old - v)
EMU_RMW(atomicSub, unsigned, old - v)
EMU_RMW_INTEGERS(atomicExch, v)
EMU_RMW(atomicExch, float, v)
EMU_RMW_INTEGERS(atomicMin, v < old ? v : old)
EMU_RMW(atomicMin, long long, v < old ? v : old)
EMU_RMW_INTEGERS(atomicMax, old < v ? v : old)
EMU_RMW(atomicMax, long long, old < v ? v : old)
EMU_RMW_INTEGERS(atomicAnd, old & v)
EMU_RMW_INTEGERS(atomicOr, old | v)
EMU_RMW_INTEGERS(atomicXor, old ^ v)
EMU_RMW(atomicInc, unsigned, old >= v ? 0 : old + 1)
EMU_RMW(atomicDec, unsigned, old == 0 || old > v ? v : old - 1)
#define EMU_CAS(T)                                    \
    EMU_ATOMIC T atomicCAS(T *p, T compare, T v) {    \
        EMU_NOTE(p);                                  \
        T old = *p;                                   \
        if (old == compare) *p = v;                   \
        return old;                                   \
    }
EMU_CAS(int)
EMU_CAS(unsigned)
EMU_CAS(unsigned long long)

EMU_INLINE void __threadfence() { asm volatile("" ::: "memory"); }
EMU_INLINE void __threadfence_block() { asm volatile("" ::: "memory"); }

// --- loads and stores by cache policy -------------------------------------------------------------

#define EMU_LOAD(name) template <class T> EMU_INLINE T name(const T *p) { return *p; }
EMU_LOAD(__ldg) EMU_LOAD(__ldcs) EMU_LOAD(__ldcg) EMU_LOAD(__ldca) EMU_LOAD(__ldcv)
#define EMU_STORE(name) template <class T> EMU_INLINE void name(T *p, T v) { *p = v; }
EMU_STORE(__stcs) EMU_STORE(__stcg) EMU_STORE(__stwb) EMU_STORE(__stwt)

// --- mathematics ----------------------------------------------------------------------------------

#define EMU_MINMAX(T)                                       \
    EMU_INLINE T min(T a, T b) { return b < a ? b : a; }    \
    EMU_INLINE T max(T a, T b) { return a < b ? b : a; }
EMU_MINMAX(int) EMU_MINMAX(unsigned) EMU_MINMAX(long) EMU_MINMAX(unsigned long)
EMU_MINMAX(long long) EMU_MINMAX(unsigned long long)
#define EMU_MINMAX_MIXED(T, U)                              \
    EMU_INLINE T min(T a, U b) { return min(a, (T)b); }     \
    EMU_INLINE T min(U a, T b) { return min((T)a, b); }     \
    EMU_INLINE T max(T a, U b) { return max(a, (T)b); }     \
    EMU_INLINE T max(U a, T b) { return max((T)a, b); }
EMU_MINMAX_MIXED(unsigned, int) EMU_MINMAX_MIXED(unsigned long, long)
EMU_MINMAX_MIXED(unsigned long long, long long)
EMU_INLINE float min(float a, float b) { return fminf(a, b); }
EMU_INLINE float max(float a, float b) { return fmaxf(a, b); }
EMU_INLINE double min(double a, double b) { return fmin(a, b); }
EMU_INLINE double max(double a, double b) { return fmax(a, b); }
EMU_MINMAX_MIXED(double, float)

#ifndef EMU_PROGRAM  // else <math.h> has them
// As in CUDA, only pow mixes float and double.
#define EMU_FLOAT1(name) EMU_INLINE float name(float x) { return name##f(x); }
EMU_FLOAT1(exp) EMU_FLOAT1(exp2) EMU_FLOAT1(expm1) EMU_FLOAT1(log) EMU_FLOAT1(log2)
EMU_FLOAT1(log10) EMU_FLOAT1(log1p) EMU_FLOAT1(sqrt) EMU_FLOAT1(cbrt) EMU_FLOAT1(sin)
EMU_FLOAT1(cos) EMU_FLOAT1(tan) EMU_FLOAT1(sinh) EMU_FLOAT1(cosh) EMU_FLOAT1(tanh)
EMU_FLOAT1(asin) EMU_FLOAT1(acos) EMU_FLOAT1(atan) EMU_FLOAT1(erf) EMU_FLOAT1(erfc)
EMU_FLOAT1(floor) EMU_FLOAT1(ceil) EMU_FLOAT1(round) EMU_FLOAT1(trunc) EMU_FLOAT1(rint)
EMU_FLOAT1(fabs)
#define EMU_FLOAT2(name) EMU_INLINE float name(float x, float y) { return name##f(x, y); }
EMU_FLOAT2(pow) EMU_FLOAT2(fmod) EMU_FLOAT2(fmin) EMU_FLOAT2(fmax) EMU_FLOAT2(atan2)
EMU_FLOAT2(hypot) EMU_FLOAT2(copysign)
EMU_INLINE double pow(float x, double y) { return pow((double)x, y); }
EMU_INLINE double pow(double x, float y) { return pow(x, (double)y); }
EMU_INLINE float pow(float x, int n) { return powf(x, n); }
EMU_INLINE double pow(double x, int n) { return pow(x, (double)n); }
EMU_INLINE float fma(float a, float b, float c) { return fmaf(a, b, c); }
EMU_INLINE float abs(float x) { return fabsf(x); }
EMU_INLINE double abs(double x) { return fabs(x); }
EMU_INLINE long long abs(long long x) { return x < 0 ? -x : x; }
#endif

EMU_INLINE float rsqrtf(float x) { return 1.0f / sqrtf(x); }
EMU_INLINE float rsqrt(float x) { return rsqrtf(x); }
EMU_INLINE double rsqrt(double x) { return 1.0 / sqrt(x); }
// The fast functions are exact here; on a GPU they differ in the last bits.
EMU_INLINE float __expf(float x) { return expf(x); }
EMU_INLINE float __logf(float x) { return logf(x); }
EMU_INLINE float __log2f(float x) { return log2f(x); }
EMU_INLINE float __powf(float x, float y) { return powf(x, y); }
EMU_INLINE float __sinf(float x) { return sinf(x); }
EMU_INLINE float __cosf(float x) { return cosf(x); }
EMU_INLINE float __fdividef(float x, float y) { return x / y; }
EMU_INLINE float fdividef(float x, float y) { return x / y; }
EMU_INLINE float __frcp_rn(float x) { return 1.0f / x; }
EMU_INLINE float __fsqrt_rn(float x) { return sqrtf(x); }
EMU_INLINE float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
EMU_INLINE float __fdiv_rn(float x, float y) { return x / y; }
EMU_INLINE float __fadd_rn(float x, float y) { return x + y; }
EMU_INLINE float __fsub_rn(float x, float y) { return x - y; }
EMU_INLINE float __fmul_rn(float x, float y) { return x * y; }
EMU_INLINE float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
EMU_INLINE double __dadd_rn(double x, double y) { return x + y; }
EMU_INLINE double __dmul_rn(double x, double y) { return x * y; }
EMU_INLINE float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }

EMU_INLINE int __popc(unsigned x) { return __builtin_popcount(x); }
EMU_INLINE int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
EMU_INLINE int __ffs(int x) { return __builtin_ffs(x); }
EMU_INLINE int __ffsll(long long x) { return __builtin_ffsll(x); }
EMU_INLINE int __clz(int x) { return x ? __builtin_clz(x) : 32; }
EMU_INLINE int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
EMU_INLINE unsigned __brev(unsigned x) {
    unsigned r = 0;
    for (int i = 0; i < 32; i++) r |= (x >> i & 1) << (31 - i);
    return r;
}
EMU_INLINE unsigned __umulhi(unsigned a, unsigned b) { return (uint64_t)a * b >> 32; }
EMU_INLINE int __mulhi(int a, int b) { return (int64_t)a * b >> 32; }
EMU_INLINE unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned __int128)a * b >> 64;
}

template <class To, class From> EMU_INLINE To emu_bits(From x) {
    static_assert(sizeof(To) == sizeof(From), "");
    To to;
    __builtin_memcpy(&to, &x, sizeof to);
    return to;
}
EMU_INLINE int __float_as_int(float x) { return emu_bits<int>(x); }
EMU_INLINE unsigned __float_as_uint(float x) { return emu_bits<unsigned>(x); }
EMU_INLINE float __int_as_float(int x) { return emu_bits<float>(x); }
EMU_INLINE float __uint_as_float(unsigned x) { return emu_bits<float>(x); }
EMU_INLINE long long __double_as_longlong(double x) { return emu_bits<long long>(x); }
EMU_INLINE double __longlong_as_double(long long x) { return emu_bits<double>(x); }
EMU_INLINE int __float2int_rn(float x) { return (int)rintf(x); }
EMU_INLINE int __float2int_rz(float x) { return (int)x; }
EMU_INLINE float __int2float_rn(int x) { return (float)x; }

#endif

// --- a kernel as the Python side sees it ----------------------------------------------------------

struct EmuParameter {
    const char *type;  // of what it points to, if it is a pointer
    int size, pointer, constant;
};
struct EmuKernel {
    const char *name;
    void (*run)(void **arguments);
    const EmuParameter *parameters;
    int count;
};

template <class T> struct EmuType {  // anything else: known by its size alone
    static constexpr EmuParameter parameter = {"", sizeof(T), 0, 0};
};
template <class T> struct EmuType<const T> : EmuType<T> {};
template <> struct EmuType<void> { static constexpr EmuParameter parameter = {"", 0, 0, 0}; };
#define EMU_TYPE(T, base)                                                    \
    template <> struct EmuType<T> {                                          \
        static constexpr EmuParameter parameter = {#base, sizeof(T), 0, 0};  \
    };
EMU_TYPE(bool, bool) EMU_TYPE(char, int8) EMU_TYPE(signed char, int8)
EMU_TYPE(unsigned char, uint8) EMU_TYPE(short, int16) EMU_TYPE(unsigned short, uint16)
EMU_TYPE(int, int32) EMU_TYPE(unsigned, uint32) EMU_TYPE(long, int64)
EMU_TYPE(unsigned long, uint64) EMU_TYPE(long long, int64) EMU_TYPE(unsigned long long, uint64)
EMU_TYPE(float, float32) EMU_TYPE(double, float64)
EMU_TYPE(int2, int32) EMU_TYPE(int4, int32) EMU_TYPE(uint2, uint32) EMU_TYPE(uint4, uint32)
EMU_TYPE(float2, float32) EMU_TYPE(float4, float32) EMU_TYPE(double2, float64)

template <class T> constexpr bool emu_is_const = false;
template <class T> constexpr bool emu_is_const<const T> = true;
template <class T> struct EmuType<T *> {
    static constexpr EmuParameter of = EmuType<T>::parameter;
    static constexpr EmuParameter parameter = {of.type, of.size, 1, emu_is_const<T>};
};

template <class> struct EmuSignature;
template <class... A> struct EmuSignature<void (*)(A...)> {
    static constexpr EmuParameter parameters[] = {EmuType<A>::parameter..., {}};
    static constexpr int count = sizeof...(A);
    template <void (*kernel)(A...), size_t... I, template <size_t...> class Indices>
    __attribute__((no_sanitize("thread"))) static void call(void **arguments, Indices<I...>) {
        kernel(*(A *)arguments[I]...);
    }
};
template <size_t...> struct EmuIndices {};
template <size_t n, size_t... I> struct EmuCount : EmuCount<n - 1, n - 1, I...> {};
template <size_t... I> struct EmuCount<0, I...> { using type = EmuIndices<I...>; };

template <auto kernel> void emu_run(void **arguments) {
    using Signature = EmuSignature<decltype(kernel)>;
    Signature::template call<kernel>(arguments, typename EmuCount<Signature::count>::type());
}
template <auto kernel> constexpr EmuKernel emu_kernel(const char *name) {
    using Signature = EmuSignature<decltype(kernel)>;
    return {name, emu_run<kernel>, Signature::parameters, Signature::count};
}

#ifdef EMU_PROGRAM
#include "cuda_runtime.h"
#endif
