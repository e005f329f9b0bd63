// What the parts of the emulator know of one another.
#pragma once

#define EMU_RUNTIME
#include "emulated.h"

constexpr int MAX_THREADS = 1024;          // of a block
constexpr size_t MAX_DYNAMIC = 227 << 10;  // bytes of shared memory; as in build.py

enum State { FRESH, RUNS, AT_BARRIER, AT_WARP, DONE };

struct Thread {  // of the block that runs
    State state;
    int id;  // its number in the block; its lane is id % 32
    uint3 index;
    int stack;
    char *stack_low, *stack_high;
    // Where it waits, and what a warp's lanes give one another.
    const char *what, *file;
    int line;
    unsigned mask;
    uint64_t value;
    int source;
    EmuWarp result;
};

extern Thread threads[MAX_THREADS];
extern Thread *current;
extern int n_threads, n_alive;  // of the block; that have not ended

struct Text { char text[320]; };
Text describe(const Thread &);

// Ends the launch. In the message, <pc 1a2b> becomes the source line of that instruction, and
// <at path:line> is a line, shown without the folder.
[[noreturn]] void fault(const char *kind, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

// Called from Python.
#define EXPORT extern "C" __attribute__((visibility("default")))
EXPORT const char *emu_launch(const EmuKernel *, const unsigned *grid, const unsigned *block,
                              void **values, char *stack_memory, unsigned seed);

// checks.cpp
enum Kind { READ, WRITE, ATOMIC };
extern bool used_atomics;
void note_block();                    // a block begins
void note_barrier();                  // all of its threads have come to a barrier
void check_barrier(const Thread &);   // one has come to it, or has ended
void check_warp(const Thread &);      // the lanes that this one waits for have come

// profile.cpp
extern bool profiling;
void profile_begin();
void profile_end();
void profile_block();
void profile_access(const char *p, int size, int kind, bool is_shared, uint32_t pc);
void profile_barrier(const Thread &at);
