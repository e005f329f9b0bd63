// Groups of threads: a block, and tiles of it. Groups of all blocks are missing, since blocks run one
// after another.
#pragma once

#include "emulated.h"

namespace cooperative_groups {

struct thread_block {
    EMU_INLINE static void sync(EMU_LINE) { emu_barrier(0, file, line); }
    EMU_INLINE static unsigned thread_rank() {
        return (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    }
    EMU_INLINE static unsigned size() { return blockDim.x * blockDim.y * blockDim.z; }
    EMU_INLINE static unsigned num_threads() { return size(); }
    EMU_INLINE static dim3 group_index() { return blockIdx; }
    EMU_INLINE static dim3 thread_index() { return threadIdx; }
    EMU_INLINE static dim3 group_dim() { return blockDim; }
    EMU_INLINE static dim3 dim_threads() { return blockDim; }
};
EMU_INLINE thread_block this_thread_block() { return {}; }

// `N` neighbours of a warp.
template <unsigned N, class Parent = thread_block> struct thread_block_tile {
    static_assert(N >= 1 && N <= 32 && (N & (N - 1)) == 0, "a tile has 1, 2, 4, 8, 16 or 32 threads");
    EMU_INLINE static unsigned first() { return emu_in_warp() & ~(N - 1); }  // in the warp
    EMU_INLINE static unsigned mask() { return (N == 32 ? ~0u : (1u << N % 32) - 1) << first(); }

    EMU_INLINE static void sync(EMU_LINE) { __syncwarp(mask(), file, line); }
    EMU_INLINE static unsigned thread_rank() { return emu_in_warp() & (N - 1); }
    EMU_INLINE static constexpr unsigned size() { return N; }
    EMU_INLINE static constexpr unsigned num_threads() { return N; }
    EMU_INLINE static unsigned meta_group_rank() {
        return thread_block::thread_rank() % emu_parent_size(Parent()) / N;
    }
    EMU_INLINE static unsigned meta_group_size() {
        return (emu_parent_size(Parent()) + N - 1) / N;
    }

    template <class T> EMU_INLINE static T shfl(T value, int from, EMU_LINE) {
        return __shfl_sync(mask(), value, from, N, file, line);
    }
    template <class T> EMU_INLINE static T shfl_up(T value, unsigned by, EMU_LINE) {
        return __shfl_up_sync(mask(), value, by, N, file, line);
    }
    template <class T> EMU_INLINE static T shfl_down(T value, unsigned by, EMU_LINE) {
        return __shfl_down_sync(mask(), value, by, N, file, line);
    }
    template <class T> EMU_INLINE static T shfl_xor(T value, unsigned by, EMU_LINE) {
        return __shfl_xor_sync(mask(), value, by, N, file, line);
    }
    EMU_INLINE static int any(int p, EMU_LINE) { return __any_sync(mask(), p, file, line); }
    EMU_INLINE static int all(int p, EMU_LINE) { return __all_sync(mask(), p, file, line); }
    EMU_INLINE static unsigned ballot(int p, EMU_LINE) {
        return __ballot_sync(mask(), p, file, line) >> first();
    }

private:
    EMU_INLINE static unsigned emu_parent_size(thread_block) { return thread_block::size(); }
    template <unsigned M, class P>
    EMU_INLINE static unsigned emu_parent_size(thread_block_tile<M, P>) { return M; }
};
template <unsigned N, class Parent>
EMU_INLINE thread_block_tile<N, Parent> tiled_partition(const Parent &) { return {}; }

EMU_INLINE void sync(const thread_block &, EMU_LINE) { thread_block::sync(file, line); }
template <unsigned N, class P>
EMU_INLINE void sync(const thread_block_tile<N, P> &tile, EMU_LINE) { tile.sync(file, line); }

template <class T> struct plus {
    EMU_INLINE T operator()(T a, T b) const { return a + b; }
};
template <class T> struct greater {
    EMU_INLINE T operator()(T a, T b) const { return b < a ? a : b; }
};
template <class T> struct less {
    EMU_INLINE T operator()(T a, T b) const { return a < b ? a : b; }
};
// The same value for all threads of the tile.
template <unsigned N, class P, class T, class Op>
EMU_INLINE T reduce(const thread_block_tile<N, P> &tile, T value, Op op, EMU_LINE) {
    for (unsigned by = N / 2; by > 0; by /= 2)
        value = op(value, tile.shfl_xor(value, by, file, line));
    return value;
}

}  // namespace cooperative_groups
