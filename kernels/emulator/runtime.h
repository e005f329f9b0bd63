// What the parts of the emulator know of one another.
#pragma once

#define EMU_RUNTIME
#include "emulated.h"

constexpr int MAX_THREADS = 1024;

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
extern int n_threads;

struct Text { char text[160]; };
Text describe(const Thread &);

// Ends the launch. <pc ...> in the message becomes the source line of that instruction.
[[noreturn]] void fault(const char *kind, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

// checks.cpp
void note_block();    // a block begins
void note_barrier();  // all of its threads have come to a barrier
void check_barrier(const Thread &);
void check_warp(const Thread &);
