// Checks every access to memory before it happens. g++ -fsanitize=thread puts a call of a function
// such as __tsan_read4(address) before each. These functions are defined here, in place of g++'s
// runtime for them.
//
// A race is two accesses of a word by different threads, one of them a write, not both atomic, with
// nothing that orders them. Time counts the barriers of a launch. A barrier of the block orders what
// is before it and what is after it. __syncwarp does so for the threads in its mask. A shuffle
// orders nothing, and blocks are never ordered. So what is found depends little on the order in
// which fibers run.

#include "runtime.h"

#include <sys/mman.h>

#include <vector>

using Time = uint32_t;

// One access as remembered with the word it touched; time 0: none.
struct Access {
    Time time;
    uint32_t pc;      // from the start of this library
    uint16_t thread;  // in its block; the time tells which block
    uint8_t bytes;    // of the word, one bit each
};

// Accesses that do not race with one another (reads, or atomics): those that suffice to detect every
// later race.
struct Several {
    Access last;   // the newest
    Access other;  // of another thread, of another warp if there was one since the last barrier
    Access older;  // of a block before this one
};

struct Word {  // what is known of 4 bytes
    Access write;
    Several reads, atomics;
};

static Time now, launch_start, block_start, last_barrier;
static Time synchronised;  // the host has seen what kernels did until then
// seen[t][i]: thread t has seen all that thread i of its warp did before this time.
static Time seen[MAX_THREADS][32];
struct Block { Time start; uint3 index; };
static std::vector<Block> blocks;

// --- memory ---------------------------------------------------------------------------------------

// Each global array lies in the middle of 4 GiB of its own, so that a wrong index hardly ever hits
// another array.
constexpr uint64_t ROOM = 1ull << 32;
static char *arena, *arena_end;
static Region *globals;
static int n_globals;

static Region *shared;  // by ascending addresses
static int n_shared;
static char *shared_begin, *shared_end;
extern thread_local char emu_dynamic[];

// The address range of this library; the linker defines them.
extern char __ehdr_start __attribute__((visibility("hidden")));
extern char _end __attribute__((visibility("hidden")));

template <class T> static T *zeros(uint64_t count) {  // pages that are never touched cost nothing
    void *memory = mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? nullptr : (T *)memory;
}

static uint64_t n_words(const Region &r) { return r.size / 4 + 2; }

// The array that an address lies in, or the nearest before it.
static inline Region *find(const char *p) {
    if (p >= shared_begin && p < shared_end) {
        static int last = 0;
        if (last >= n_shared || p < shared[last].begin || p >= shared[last].end)
            for (last = n_shared - 1; last > 0 && p < shared[last].begin;) last--;
        return &shared[last];
    }
    return find_global(p);
}

Region *find_global(const void *p) {
    if (p < arena || p >= arena_end) return nullptr;
    const int i = ((const char *)p - arena) / ROOM;
    return i < n_globals ? globals + i : nullptr;
}

void open_shared(Region *arrays, int n, uint64_t dynamic_offset) {
    shared = arrays;
    n_shared = n;
    shared_begin = emu_dynamic - dynamic_offset;
    const uint64_t bytes = MAX_DYNAMIC + shared[n - 1].offset + shared[n - 1].size;
    shared_end = shared_begin + bytes;
    Word *words = zeros<Word>(bytes / 4 + 2);
    char *written = zeros<char>(bytes);
    for (int i = 0; i < n; i++) {
        Region &r = shared[i];
        r.begin = shared_begin + r.offset;
        r.end = r.begin + r.size;
        r.words = words + r.offset / 4;
        r.written = written + r.offset;
    }
}

static void close_shared() {
    const uint64_t bytes = shared_end - shared_begin;
    munmap(shared[0].words - shared[0].offset / 4, (bytes / 4 + 2) * sizeof(Word));
    munmap(shared[0].written - shared[0].offset, bytes);
}

bool open_arena(Region *arrays, int n) {
    globals = arrays;
    n_globals = 0;
    arena = (char *)mmap(nullptr, (n + 1) * ROOM, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED) return false;
    arena_end = arena + n * ROOM;
    return true;
}

bool open_global(int i) {
    Region &r = globals[i];
    if (i >= n_globals) n_globals = i + 1;
    if (r.size >= ROOM / 2 - 512) return false;
    char *middle = arena + i * ROOM + ROOM / 2;
    if (mprotect(middle, r.size + 512, PROT_READ | PROT_WRITE)) return false;
    r.begin = middle + r.offset % 256;
    r.end = r.begin + r.size;
    r.words = zeros<Word>(n_words(r));
    return r.words != nullptr;
}

void close_global(Region &r) {
    munmap(r.words, n_words(r) * sizeof(Word));
}

// --- messages -------------------------------------------------------------------------------------

static Text describe(const Access &a) {
    size_t i = blocks.size() - 1;
    while (i > 0 && blocks[i].start > a.time) i--;
    return describe(index_of(a.thread), blocks[i].index);
}

Text place(const Region &r, const char *p) {
    Text text;
    if (r.freed) {
        snprintf(text.text, sizeof text.text, "%s, which cudaFree has released", r.name);
        return text;
    }
    if (r.item == 0) {
        snprintf(text.text, sizeof text.text, "byte %lld of %s (%llu bytes)",
                 (long long)(p - r.begin), r.name, (unsigned long long)r.size);
        return text;
    }
    long long element = (p - r.begin) / r.item - ((p - r.begin) % r.item < 0);
    snprintf(text.text, sizeof text.text, "element %lld of %s (%llu elements)", element, r.name,
             (unsigned long long)(r.size / r.item));
    return text;
}

static const char *KINDS[] = {"read", "write", "atomic"};

// The first read of memory that nobody had written. If a thread writes it before the next barrier, a
// race is reported instead, which says more.
static Text never_written;

static void check_initialised() {
    if (never_written.text[0]) fault("uninitialised", "%s", never_written.text);
}

// --- races ----------------------------------------------------------------------------------------

// Whether an earlier access of some of these bytes is not ordered before what `t` does now.
static inline bool unordered(const Access &a, uint8_t bytes, const Thread &t, bool is_shared) {
    if (a.time == 0 || !(a.bytes & bytes)) return false;
    if (a.time < block_start)  // each block has shared memory of its own; launches are ordered
        return !is_shared && a.time >= launch_start;
    if (a.time < last_barrier || a.thread == t.id) return false;
    return (a.thread ^ t.id) >= 32 || a.time >= seen[t.id][a.thread & 31];
}

[[noreturn]] static void report_race(const Access &a, int kind_a, int kind, uint32_t pc,
                                     const Region &r, const char *p) {
    bool between = a.time < block_start;
    fault(between ? "race between blocks" : "race",
          "%s at <pc %x> by %s and %s at <pc %x> by %s, with nothing to order them: %s",
          KINDS[kind], pc, describe(*current).text, KINDS[kind_a], a.pc, describe(a).text,
          place(r, p).text);
}

static inline const Access *race_with(const Several &s, uint8_t bytes, const Thread &t, bool own) {
    if (s.last.time == 0) return nullptr;
    if (unordered(s.last, bytes, t, own)) return &s.last;
    if (unordered(s.other, bytes, t, own)) return &s.other;
    if (unordered(s.older, bytes, t, own)) return &s.older;
    return nullptr;
}

static inline void add(Several &s, const Access &a) {
    if (s.last.time < block_start) {
        if (s.last.time != 0) s.older = s.last;
    } else if (s.last.thread != a.thread) {
        bool of_another_warp = s.other.time >= last_barrier && (s.other.thread ^ a.thread) >= 32;
        if (!of_another_warp) s.other = s.last;
    }
    s.last = a;
}

static inline void check_word(Region &r, char *p, uint8_t bytes, int kind, uint32_t pc) {
    const Thread &t = *current;
    const bool is_shared = &r >= shared && &r < shared + n_shared;
    const uint64_t offset = (uintptr_t)p / 4 - (uintptr_t)r.begin / 4;
    Word &word = r.words[offset];
    const Access *other = nullptr;
    if (unordered(word.write, bytes, t, is_shared))
        report_race(word.write, WRITE, kind, pc, r, p);
    if (kind != READ && (other = race_with(word.reads, bytes, t, is_shared)))
        report_race(*other, READ, kind, pc, r, p);
    if (kind != ATOMIC && (other = race_with(word.atomics, bytes, t, is_shared)))
        report_race(*other, ATOMIC, kind, pc, r, p);

    Access a = {now, pc, (uint16_t)t.id, bytes};
    if (kind == WRITE) word.write = a;
    else add(kind == READ ? word.reads : word.atomics, a);
}

// --- every access ---------------------------------------------------------------------------------

// An access by the host's code of a program: of memory that it shares with the device, after a
// synchronisation.
static void check_host(char *p, uint64_t size, int kind, uint32_t pc) {
    const Region *r = find_global(p);
    if (r == nullptr) return;
    if (!r->managed)
        fault("wrong memory", "%s at <pc %x> by the host of memory of the device: %s", KINDS[kind], pc,
              place(*r, p).text);
    if (p < r->begin || p + size > r->end || r->freed)
        fault("out of bounds", "%s at <pc %x> by the host: %s", KINDS[kind], pc, place(*r, p).text);
    for (char *q = p; q < p + size; q += 4) {
        const Word &word = r->words[(uintptr_t)q / 4 - (uintptr_t)r->begin / 4];
        const Access *last[] = {&word.write, &word.atomics.last, &word.reads.last};
        for (int i = 0; i < (kind == READ ? 2 : 3); i++)
            if (last[i]->time > synchronised)
                fault("race with the host", "%s at <pc %x> by the host and %s at <pc %x> by a kernel, "
                      "with no cudaDeviceSynchronize between: %s", KINDS[kind], pc,
                      KINDS[i == 0 ? WRITE : i == 1 ? ATOMIC : READ], last[i]->pc,
                      place(*r, p).text);
    }
}

static inline void check(char *p, uint64_t size, uint64_t alignment, int kind, void *return_to) {
    const uint32_t pc = (char *)return_to - &__ehdr_start - 1;
    if (current == nullptr) return check_host(p, size, kind, pc);
    const Thread &t = *current;
    if (p >= t.stack_low && p < t.stack_high) return;  // local variables
    Region *r = find(p);
    if (r == nullptr) {
        if (p >= &__ehdr_start && p < &_end) return;  // constants
        fault(host_fault ? "wrong memory" : "out of bounds",
              "%s at <pc %x> by %s of %p, which belongs to no array", KINDS[kind], pc,
              describe(t).text, (void *)p);
    }
    if (p < r->begin || p + size > r->end || r->freed)
        fault("out of bounds", "%s at <pc %x> by %s: %s", KINDS[kind], pc, describe(t).text,
              place(*r, p).text);
    if ((uintptr_t)p % alignment)
        fault("misaligned", "%s of %d bytes at <pc %x> by %s, %d past a multiple: %s", KINDS[kind],
              (int)size, pc, describe(t).text, (int)((uintptr_t)p % alignment), place(*r, p).text);
    if (kind != READ && r->constant)
        fault("const", "%s at <pc %x> by %s through a pointer to const: %s", KINDS[kind], pc,
              describe(t).text, place(*r, p).text);
    if (profiling) profile_access(p, size, kind, *r, r >= shared && r < shared + n_shared, pc);
    if (r->constant) return;  // never written, so no race
    for (char *q = p, *end = p + size; q < end;) {
        int first = (uintptr_t)q % 4, n = 4 - first < end - q ? 4 - first : end - q;
        check_word(*r, q, ((1 << n) - 1) << first, kind, pc);
        q += n;
    }
    if (r->written == nullptr) return;
    char *written = r->written + (p - r->begin);
    if (kind == WRITE) memset(written, 1, size);
    else if (memchr(written, 0, size) && never_written.text[0] == 0)
        snprintf(never_written.text, sizeof never_written.text, "%s at <pc %x> by %s: %s",
                 KINDS[kind], pc, describe(t).text, place(*r, p).text);
}

extern "C" {
#define EMU_TSAN(prefix, size, alignment)                                     \
    void prefix##read##size(void *p) {                                        \
        stop_if_late(__builtin_return_address(0));                            \
        check((char *)p, size, alignment, READ, __builtin_return_address(0)); \
    }                                                                         \
    void prefix##write##size(void *p) {                                       \
        stop_if_late(__builtin_return_address(0));                            \
        check((char *)p, size, alignment, WRITE, __builtin_return_address(0));\
    }
EMU_TSAN(__tsan_, 1, 1) EMU_TSAN(__tsan_, 2, 2) EMU_TSAN(__tsan_, 4, 4)
EMU_TSAN(__tsan_, 8, 8) EMU_TSAN(__tsan_, 16, 16)
// Of types that g++ knows to be aligned to less than their size: their parts' alignment counts.
EMU_TSAN(__tsan_unaligned_, 2, 1) EMU_TSAN(__tsan_unaligned_, 4, 1)
EMU_TSAN(__tsan_unaligned_, 8, 4) EMU_TSAN(__tsan_unaligned_, 16, 4)
void __tsan_read_range(void *p, long size) {
    check((char *)p, size, 1, READ, __builtin_return_address(0));
}
void __tsan_write_range(void *p, long size) {
    check((char *)p, size, 1, WRITE, __builtin_return_address(0));
}
void __tsan_init() {}

void *emu_memmove(void *to, const void *from, size_t size) {
    if (size == 0) return to;
    check((char *)from, size, 1, READ, __builtin_return_address(0));
    check((char *)to, size, 1, WRITE, __builtin_return_address(0));
    return memmove(to, from, size);
}
void *emu_memcpy(void *, const void *, size_t) __attribute__((alias("emu_memmove")));
void *emu_memset(void *to, int value, size_t size) {
    if (size == 0) return to;
    check((char *)to, size, 1, WRITE, __builtin_return_address(0));
    return memset(to, value, size);
}

void emu_atomic(void *p, int size, void *pc) {
    used_atomics = true;
    stop_if_late(pc);
    check((char *)p, size, size, ATOMIC, pc);
}

// From -fsanitize=bounds: an index into an array whose length the type says.
struct ArrayIndex {
    const char *file;
    uint32_t line, column;
    struct Type { uint16_t kind, info; char name[1]; } *array, *index;
};
void __ubsan_handle_out_of_bounds(ArrayIndex *where, uintptr_t index) {
    fault("out of bounds", "index %lld of an array of type %s at <at %s:%u> by %s", (long long)index,
          where->array->name, where->file, where->line,
          current ? describe(*current).text : "the host");
}
}

// --- barriers -------------------------------------------------------------------------------------

static const Thread *first_arrived;

void note_block() {
    if (profiling) profile_block();
    block_start = last_barrier = ++now;
    blocks.push_back({now, blockIdx});
    first_arrived = nullptr;
    never_written.text[0] = 0;
    // NaN as a float, and an index out of bounds, if it is read without having been written.
    for (int i = 0; i < n_shared; i++) {
        memset(shared[i].begin, 0xff, shared[i].size);
        memset(shared[i].written, 0, shared[i].size);
    }
}

void note_barrier() {
    check_initialised();
    last_barrier = ++now;
    if (profiling && first_arrived) profile_barrier(*first_arrived);
    first_arrived = nullptr;
}

// One of the block's threads reaches a barrier, or returns while others wait at one.
void check_barrier(const Thread &t) {
    if (t.state == DONE) {
        if (n_alive == 0) check_initialised();
        if (first_arrived)
            fault("barrier", "%s has ended and %s waits at __syncthreads of <at %s:%d>",
                  describe(t).text, describe(*first_arrived).text, first_arrived->file,
                  first_arrived->line);
        return;
    }
    for (int i = 0; n_alive < n_threads && i < n_threads; i++)
        if (threads[i].state == DONE)
            fault("barrier", "%s waits at __syncthreads of <at %s:%d> and %s has ended",
                  describe(t).text, t.file, t.line, describe(threads[i]).text);
    if (!first_arrived) first_arrived = &t;
    const Thread &o = *first_arrived;
    if (o.line != t.line || strcmp(o.file, t.file) != 0)
        fault("barrier", "%s waits at __syncthreads of <at %s:%d> and %s at that of <at %s:%d>",
              describe(t).text, t.file, t.line, describe(o).text, o.file, o.line);
}

// The threads that `by` names have all arrived. The last warp of a block need not be full, so a mask
// may name threads that do not exist, but nothing can be read from them.
void check_warp(const Thread &by) {
    const int first = by.id & ~31;
    for (int i = 0; i < 32 && first + i < n_threads; i++) {
        if (!(by.mask >> i & 1)) continue;
        const Thread &t = threads[first + i];
        if (t.state == DONE)
            fault("warp", "%s at <at %s:%d> of %s: mask 0x%x names thread %d of the warp, which has "
                  "ended", by.what, by.file, by.line, describe(by).text, by.mask, i);
        if (t.line != by.line || t.what != by.what || strcmp(t.file, by.file) != 0)
            fault("warp", "%s waits at %s of <at %s:%d> and %s of the same warp at %s of <at %s:%d>",
                  describe(by).text, by.what, by.file, by.line, describe(t).text, t.what, t.file,
                  t.line);
        if (t.source >= 0 && (!(by.mask >> t.source & 1) || first + t.source >= n_threads))
            fault("warp", "%s at <at %s:%d> of %s reads from thread %d of the warp, which %s", t.what,
                  t.file, t.line, describe(t).text, t.source,
                  by.mask >> t.source & 1 ? "does not exist" : "the mask does not name");
    }
    if (strcmp(by.what, "__syncwarp") != 0) return;
    // Each of them has now seen what any of them had seen, and all that they did.
    Time joined[32] = {};
    now++;
    for (int m = 0; m < 32 && first + m < n_threads; m++)
        for (int i = 0; by.mask >> m & 1 && i < 32; i++)
            if (joined[i] < seen[first + m][i]) joined[i] = seen[first + m][i];
    for (int m = 0; m < 32 && first + m < n_threads; m++)
        if (by.mask >> m & 1) joined[m] = now;
    for (int m = 0; m < 32 && first + m < n_threads; m++)
        if (by.mask >> m & 1) memcpy(seen[first + m], joined, sizeof joined);
}

// --- a launch -------------------------------------------------------------------------------------

bool used_atomics;

void synchronise() { synchronised = now; }

const char *check_launch(const EmuKernel *kernel, const unsigned *grid, const unsigned *block,
                         void **values, char *stack_memory, unsigned seed) {
    launch_start = ++now;
    blocks.clear();
    memset(seen, 0, sizeof seen);
    used_atomics = false;
    return emu_launch(kernel, grid, block, values, stack_memory, seed);
}

// As emu_launch, on copies of the global arrays. `pointers` has two numbers for each argument: its
// region, or -1, and the offset in it.
EXPORT const char *emu_check(const EmuKernel *kernel, const unsigned *grid, const unsigned *block,
                             void **values, char *stack_memory, unsigned seed,
                             Region *shared_arrays, int n_shared_arrays, uint64_t dynamic_offset,
                             Region *arrays, int n_arrays, const int64_t *pointers,
                             int profile) {
    open_shared(shared_arrays, n_shared_arrays, dynamic_offset);
    if (!open_arena(arrays, n_arrays)) return "memory|no address space for the arrays";
    for (int i = 0; i < n_arrays; i++) {
        if (!open_global(i)) return "memory|no memory for the arrays";
        memcpy(arrays[i].begin, arrays[i].data, arrays[i].size);
    }
    std::vector<char *> addresses(kernel->count);
    std::vector<void *> own_values(values, values + kernel->count);
    for (int i = 0; i < kernel->count; i++) {
        if (pointers[2 * i] < 0) continue;
        addresses[i] = arrays[pointers[2 * i]].begin + pointers[2 * i + 1];
        own_values[i] = &addresses[i];
    }

    now = 0;
    profiling = profile;
    if (profiling) profile_begin();
    const char *fault = check_launch(kernel, grid, block, own_values.data(), stack_memory, seed);
    if (profiling) profile_end();

    for (int i = 0; i < n_arrays; i++) {
        if (!arrays[i].constant) memcpy(arrays[i].data, arrays[i].begin, arrays[i].size);
        close_global(arrays[i]);
    }
    munmap(arena, (n_arrays + 1) * ROOM);
    close_shared();
    return fault;
}

EXPORT int emu_used_atomics() { return used_atomics; }
