// Half precision: __half, __half2 and the functions that programs use most. Arithmetic is done in
// double and rounded once, to nearest even. For +, -, *, /, fma and sqrt that gives a GPU's bits; a
// GPU's hexp and other functions may differ in the last bit.
#pragma once

#include "emulated.h"

// The bits of the half nearest to x; ties go to the even one.
EMU_INLINE unsigned short emu_half_bits(double x) {
    const uint64_t bits = emu_bits<uint64_t>(x);
    const unsigned sign = bits >> 48 & 0x8000;
    const double a = fabs(x);
    if (a != a) return 0x7fff;
    if (a >= 65520) return sign | 0x7c00;  // infinity: 65504 is the largest half
    int exponent = int(bits >> 52 & 0x7ff) - 1023;
    if (exponent < -14) return sign + (unsigned)rint(a * 0x1p24);  // subnormal: units of 2^-24
    // 1024 to 2048 units of 2^(exponent - 10); 2048 carries into the exponent.
    const double scale = emu_bits<double>(uint64_t(10 - exponent + 1023) << 52);
    return sign + ((exponent + 14) << 10) + (unsigned)rint(a * scale);
}

EMU_INLINE float emu_half_value(unsigned short bits) {
    const unsigned sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
    if (exponent == 0) return (sign ? -1.0f : 1.0f) * (fraction * 0x1p-24f);
    return __uint_as_float(sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13);
}

#define EMU_HALF_NUMBERS(_)                                                                   \
    _(float) _(double) _(short) _(unsigned short) _(int) _(unsigned) _(long) _(unsigned long) \
    _(long long) _(unsigned long long)

struct alignas(2) __half {
    unsigned short __x;
    __half() = default;
#define EMU_HALF_FROM(T) EMU_INLINE __half(T x) : __x(emu_half_bits((double)x)) {}
    EMU_HALF_NUMBERS(EMU_HALF_FROM)
    EMU_INLINE operator float() const { return emu_half_value(__x); }
    EMU_INLINE explicit operator bool() const { return (__x & 0x7fff) != 0; }
};
typedef __half half;

EMU_INLINE float __half2float(__half a) { return a; }
EMU_INLINE unsigned short __half_as_ushort(__half a) { return a.__x; }
EMU_INLINE short __half_as_short(__half a) { return (short)a.__x; }
EMU_INLINE __half __ushort_as_half(unsigned short bits) {
    __half a;
    a.__x = bits;
    return a;
}
EMU_INLINE __half __short_as_half(short bits) { return __ushort_as_half((unsigned short)bits); }
EMU_INLINE double emu_double(__half a) { return emu_half_value(a.__x); }

#define EMU_HALF_CONVERSION(name, T) EMU_INLINE __half name(T x) { return __half(x); }
EMU_HALF_CONVERSION(__float2half, float) EMU_HALF_CONVERSION(__float2half_rn, float)
EMU_HALF_CONVERSION(__double2half, double) EMU_HALF_CONVERSION(__int2half_rn, int)
EMU_HALF_CONVERSION(__uint2half_rn, unsigned) EMU_HALF_CONVERSION(__short2half_rn, short)
EMU_HALF_CONVERSION(__ushort2half_rn, unsigned short)
EMU_INLINE int __half2int_rn(__half a) { return (int)rintf(a); }
EMU_INLINE int __half2int_rz(__half a) { return (int)(float)a; }
EMU_INLINE unsigned __half2uint_rn(__half a) { return (unsigned)rintf(a); }
EMU_INLINE unsigned __half2uint_rz(__half a) { return (unsigned)(float)a; }

// --- two halves -----------------------------------------------------------------------------------

struct alignas(4) __half2 {
    __half x, y;
    __half2() = default;
    EMU_INLINE __half2(__half x, __half y) : x(x), y(y) {}
};
typedef __half2 half2;

EMU_INLINE __half2 make_half2(__half x, __half y) { return {x, y}; }
EMU_INLINE __half2 __halves2half2(__half x, __half y) { return {x, y}; }
EMU_INLINE __half2 __half2half2(__half a) { return {a, a}; }
EMU_INLINE __half2 __float2half2_rn(float a) { return {a, a}; }
EMU_INLINE __half2 __floats2half2_rn(float x, float y) { return {x, y}; }
EMU_INLINE __half2 __float22half2_rn(float2 a) { return {a.x, a.y}; }
EMU_INLINE float2 __half22float2(__half2 a) { return {a.x, a.y}; }
EMU_INLINE __half __low2half(__half2 a) { return a.x; }
EMU_INLINE __half __high2half(__half2 a) { return a.y; }
EMU_INLINE float __low2float(__half2 a) { return a.x; }
EMU_INLINE float __high2float(__half2 a) { return a.y; }
EMU_INLINE __half2 __low2half2(__half2 a) { return {a.x, a.x}; }
EMU_INLINE __half2 __high2half2(__half2 a) { return {a.y, a.y}; }
EMU_INLINE __half2 __lows2half2(__half2 a, __half2 b) { return {a.x, b.x}; }
EMU_INLINE __half2 __highs2half2(__half2 a, __half2 b) { return {a.y, b.y}; }
EMU_INLINE __half2 __lowhigh2highlow(__half2 a) { return {a.y, a.x}; }

// --- arithmetic: name(half), name2(half2) ---------------------------------------------------------

#define EMU_HALF1(name, name2, result)                                                      \
    EMU_INLINE __half name(__half half_a) {                                                 \
        const double a = emu_double(half_a);                                                \
        return __half(result);                                                              \
    }                                                                                       \
    EMU_INLINE __half2 name2(__half2 a) { return {name(a.x), name(a.y)}; }
#define EMU_HALF2(name, name2, result)                                                      \
    EMU_INLINE __half name(__half half_a, __half half_b) {                                  \
        const double a = emu_double(half_a), b = emu_double(half_b);                        \
        return __half(result);                                                              \
    }                                                                                       \
    EMU_INLINE __half2 name2(__half2 a, __half2 b) { return {name(a.x, b.x), name(a.y, b.y)}; }
#define EMU_HALF_FMA(name, name2, result)                                                   \
    EMU_INLINE __half name(__half half_a, __half half_b, __half half_c) {                   \
        const double s = emu_double(half_a) * emu_double(half_b) + emu_double(half_c);      \
        return __half(result);                                                              \
    }                                                                                       \
    EMU_INLINE __half2 name2(__half2 a, __half2 b, __half2 c) {                             \
        return {name(a.x, b.x, c.x), name(a.y, b.y, c.y)};                                  \
    }
EMU_INLINE double emu_saturate(double x) { return x > 0 ? (x < 1 ? x : 1) : 0; }

EMU_HALF2(__hadd, __hadd2, a + b) EMU_HALF2(__hadd_rn, __hadd2_rn, a + b)
EMU_HALF2(__hsub, __hsub2, a - b) EMU_HALF2(__hsub_rn, __hsub2_rn, a - b)
EMU_HALF2(__hmul, __hmul2, a * b) EMU_HALF2(__hmul_rn, __hmul2_rn, a * b)
EMU_HALF2(__hdiv, __h2div, a / b)
EMU_HALF2(__hadd_sat, __hadd2_sat, emu_saturate(a + b))
EMU_HALF2(__hsub_sat, __hsub2_sat, emu_saturate(a - b))
EMU_HALF2(__hmul_sat, __hmul2_sat, emu_saturate(a * b))
EMU_HALF_FMA(__hfma, __hfma2, s) EMU_HALF_FMA(__hfma_sat, __hfma2_sat, emu_saturate(s))
// Of a number and NaN the number; -0 is less than 0.
EMU_HALF2(__hmax, __hmax2, a == b ? (signbit(a) ? b : a) : fmax(a, b))
EMU_HALF2(__hmin, __hmin2, a == b ? (signbit(a) ? a : b) : fmin(a, b))
EMU_INLINE __half __hneg(__half a) { return __ushort_as_half(a.__x ^ 0x8000); }
EMU_INLINE __half2 __hneg2(__half2 a) { return {__hneg(a.x), __hneg(a.y)}; }
EMU_INLINE __half __habs(__half a) { return __ushort_as_half(a.__x & 0x7fff); }
EMU_INLINE __half2 __habs2(__half2 a) { return {__habs(a.x), __habs(a.y)}; }
EMU_HALF1(hsqrt, h2sqrt, sqrt(a)) EMU_HALF1(hrsqrt, h2rsqrt, 1 / sqrt(a))
EMU_HALF1(hrcp, h2rcp, 1 / a)
EMU_HALF1(hexp, h2exp, exp(a)) EMU_HALF1(hexp2, h2exp2, exp2(a)) EMU_HALF1(hlog, h2log, log(a))
EMU_HALF1(hlog2, h2log2, log2(a)) EMU_HALF1(hlog10, h2log10, log10(a))
EMU_HALF1(hsin, h2sin, sin(a)) EMU_HALF1(hcos, h2cos, cos(a))
EMU_HALF1(hfloor, h2floor, floor(a)) EMU_HALF1(hceil, h2ceil, ceil(a))
EMU_HALF1(htrunc, h2trunc, trunc(a)) EMU_HALF1(hrint, h2rint, rint(a))

#define EMU_HALF_OPERATOR(op, name, name2)                                                  \
    EMU_INLINE __half operator op(const __half &a, const __half &b) { return name(a, b); }  \
    EMU_INLINE __half2 operator op(const __half2 &a, const __half2 &b) { return name2(a, b); } \
    EMU_INLINE __half &operator op##=(__half &a, const __half &b) { return a = name(a, b); } \
    EMU_INLINE __half2 &operator op##=(__half2 &a, const __half2 &b) { return a = name2(a, b); }
EMU_HALF_OPERATOR(+, __hadd, __hadd2) EMU_HALF_OPERATOR(-, __hsub, __hsub2)
EMU_HALF_OPERATOR(*, __hmul, __hmul2) EMU_HALF_OPERATOR(/, __hdiv, __h2div)
EMU_INLINE __half operator-(const __half &a) { return __hneg(a); }
EMU_INLINE __half2 operator-(const __half2 &a) { return __hneg2(a); }
EMU_INLINE __half operator+(const __half &a) { return a; }

// name is false if one of them is NaN, name##u true. The forms for half2 give 1 or 0 for each, or
// tell whether both hold.
#define EMU_HALF_COMPARISON(name, op, not_op)                                               \
    EMU_INLINE bool __h##name(__half a, __half b) { return (float)a op (float)b; }          \
    EMU_INLINE bool __h##name##u(__half a, __half b) { return !((float)a not_op (float)b); } \
    EMU_INLINE __half2 __h##name##2(__half2 a, __half2 b) {                                 \
        return {(int)__h##name(a.x, b.x), (int)__h##name(a.y, b.y)};                        \
    }                                                                                       \
    EMU_INLINE bool __hb##name##2(__half2 a, __half2 b) {                                   \
        return __h##name(a.x, b.x) && __h##name(a.y, b.y);                                  \
    }                                                                                       \
    EMU_INLINE bool operator op(const __half &a, const __half &b) { return __h##name(a, b); } \
    EMU_INLINE bool operator op(const __half2 &a, const __half2 &b) { return __hb##name##2(a, b); }
EMU_HALF_COMPARISON(eq, ==, !=) EMU_HALF_COMPARISON(lt, <, >=) EMU_HALF_COMPARISON(le, <=, >)
EMU_HALF_COMPARISON(gt, >, <=) EMU_HALF_COMPARISON(ge, >=, <)
EMU_INLINE bool __hisnan(__half a) { return (a.__x & 0x7fff) > 0x7c00; }
EMU_INLINE int __hisinf(__half a) { return a.__x == 0x7c00 ? 1 : a.__x == 0xfc00 ? -1 : 0; }
EMU_INLINE bool __hneu(__half a, __half b) { return (float)a != (float)b; }
EMU_INLINE bool __hne(__half a, __half b) { return __hneu(a, b) && !__hisnan(a) && !__hisnan(b); }
EMU_INLINE bool __hbneu2(__half2 a, __half2 b) { return __hneu(a.x, b.x) && __hneu(a.y, b.y); }
EMU_INLINE bool operator!=(const __half &a, const __half &b) { return __hneu(a, b); }
EMU_INLINE bool operator!=(const __half2 &a, const __half2 &b) { return __hbneu2(a, b); }

EMU_RMW(atomicAdd, __half, old + v)
EMU_RMW(atomicAdd, __half2, old + v)

EMU_TYPE(__half, float16) EMU_TYPE(__half2, float16)
