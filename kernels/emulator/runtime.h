// What the parts of the emulator share. build.py defines MAX_THREADS, of a block, and MAX_DYNAMIC,
// bytes of dynamic shared memory.
#pragma once

#define EMU_RUNTIME
#include "emulated.h"

#include <signal.h>

enum State { FRESH, RUNS, AT_BARRIER, AT_WARP, DONE };

struct Thread {  // of the running block
    State state;
    int id;  // its number in the block; its place in its warp is id % 32
    uint3 index;
    int stack;
    char *stack_low, *stack_high;
    // Where it waits, and what the threads of a warp exchange.
    const char *what, *file;
    int line;
    unsigned mask;
    uint64_t value;
    int source;
    EmuWarp result;
};

extern Thread threads[MAX_THREADS];
extern Thread *current;
extern int n_threads, n_alive;  // of the block: all threads, and those that have not returned

// Ends a launch that takes too long, at an instruction of the kernel.
extern volatile sig_atomic_t time_is_up;
[[noreturn]] void endless(void *pc);
inline void stop_if_late(void *return_to) {
    if (time_is_up && current) endless((char *)return_to - 1);
}

// The threadIdx of a thread by its number in the block.
inline uint3 index_of(unsigned id) {
    return {id % blockDim.x, id / blockDim.x % blockDim.y, id / (blockDim.x * blockDim.y)};
}

struct Text { char text[320]; };
Text describe(uint3 thread, uint3 block);
Text describe(const Thread &);  // of the running block

// Ends the launch. In the message, <pc 1a2b> stands for the source line of that instruction, and
// <at path:line> for a line, which is shown without its folder.
[[noreturn]] void fault(const char *kind, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

// If set, called by `fault` with "kind|message" for a fault of the host's code.
extern void (*host_fault)(const char *text);

// Called from Python.
#define EXPORT extern "C" __attribute__((visibility("default")))
EXPORT const char *emu_launch(const EmuKernel *, const unsigned *grid, const unsigned *block,
                              void **values, char *stack_memory, unsigned seed);

// checks.cpp
enum Kind { READ, WRITE, ATOMIC };
struct Word;

// An array that the kernel may use.
struct Region {
    const char *name;
    char *data;       // global: the caller's, copied before the launch and after it
    uint64_t size;    // bytes
    uint64_t offset;  // global: past an address that is a multiple of 256; shared: in all of it
    int item;         // bytes of an element; shared: 0, not known
    int constant;     // nothing may be written
    char *begin, *end;
    Word *words;      // of the address `begin` rounded down to 4
    char *written;    // for each byte, whether anybody wrote it; null: all of them
    int managed;      // the host may use it too
    int freed;
};
void open_shared(Region *arrays, int n, uint64_t dynamic_offset);
bool open_arena(Region *arrays, int n);  // address space for n global arrays
bool open_global(int i);                 // memory for arrays[i], of its size and offset
void close_global(Region &);
Region *find_global(const void *);
Text place(const Region &, const char *p);  // for messages
// As emu_launch, with checks.
const char *check_launch(const EmuKernel *, const unsigned *grid, const unsigned *block,
                         void **values, char *stack_memory, unsigned seed);
void synchronise();  // the host waits for the device
extern bool used_atomics;
#ifdef EMU_CHECKS
void note_block();                    // a block begins
void note_barrier();                  // all of its threads have reached a barrier
void check_barrier(const Thread &);   // one has reached it, or has returned
void check_warp(const Thread &);      // the threads that this one waits for have all arrived
#else
inline void note_block() {}
inline void note_barrier() {}
inline void check_barrier(const Thread &) {}
inline void check_warp(const Thread &) {}
#endif

// profile.cpp
extern bool profiling;
void profile_begin();
void profile_end();
void profile_block();
void profile_access(const char *p, int size, int kind, const Region &, bool is_shared, uint32_t pc);
void profile_barrier(const Thread &);
