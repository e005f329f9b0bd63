// Runs a kernel. Each CUDA thread is a fiber, blocks run one after another, and a fiber runs until
// it must wait for others. Linked to every compiled .cu file.

#include "runtime.h"

#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef __x86_64__
#define EMU_UCONTEXT
#endif

extern "C" {
uint3 threadIdx, blockIdx, blockDim, gridDim;
}

Thread threads[MAX_THREADS];
Thread *current;
int n_threads;
char fault_text[4096];
void (*host_fault)(const char *);

static constexpr size_t STACK = 128 << 10;
static constexpr uint64_t CANARY = 0x5afe57ac4b0770f5;
static void (*entry)(void **);
static void **arguments;

// --- stacks and switches --------------------------------------------------------------------------

#ifdef EMU_UCONTEXT
struct Context { ucontext_t registers; };
static Context main_context, contexts[MAX_THREADS];
static void switch_to(Context &from, Context &to) { swapcontext(&from.registers, &to.registers); }
#else
// The registers that a call must preserve are on the stack, so a stack pointer is the whole context.
using Context = void *;
static Context main_context, contexts[MAX_THREADS];
extern "C" void emu_switch(Context *from, Context to) __attribute__((visibility("hidden")));
asm(R"(
    .text
    .hidden emu_switch
    .globl emu_switch
    .type emu_switch, @function
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size emu_switch, . - emu_switch
)");
static void switch_to(Context &from, Context &to) { emu_switch(&from, to); }
#endif

static void stop_if_late(const char *file, int line);

static char *stacks;  // MAX_THREADS of them, from the caller
static int free_stacks[MAX_THREADS], n_free;
static void fiber();

static char *stack_bottom(int stack) { return stacks + stack * STACK; }

// Gives a thread that starts now a free stack.
static void make_context(Thread &t) {
    t.state = RUNS;
    t.stack = free_stacks[--n_free];
    t.stack_low = stack_bottom(t.stack);
    // The offset differs by stack, or all stacks would compete for a few sets of the cache.
    t.stack_high = t.stack_low + STACK - t.stack % 64 * 64;
    memcpy(t.stack_low, &CANARY, sizeof CANARY);
    Context &context = contexts[&t - threads];
#ifdef EMU_UCONTEXT
    getcontext(&context.registers);
    context.registers.uc_stack.ss_sp = t.stack_low;
    context.registers.uc_stack.ss_size = t.stack_high - t.stack_low;
    context.registers.uc_link = nullptr;
    makecontext(&context.registers, fiber, 0);
#else
    void **top = (void **)t.stack_high;
    *--top = nullptr;          // fiber() never returns; a debugger's backtrace ends here
    *--top = (void *)fiber;
    context = top - 6;         // six registers, whose values do not matter
#endif
}

// --- who runs next --------------------------------------------------------------------------------

static Thread *queue[MAX_THREADS];  // the threads that can run: a ring
static int queue_first, queue_count;
static int order[MAX_THREADS];      // in which threads start and leave a barrier
int n_alive;
static int n_arrived, n_at_warp, n_votes;
static int votes_of_last_barrier;

static void push(Thread &t) {
    queue[(queue_first + queue_count++) % MAX_THREADS] = &t;
}

static Thread *pop() {
    if (queue_count == 0) return nullptr;
    Thread *t = queue[queue_first];
    queue_first = (queue_first + 1) % MAX_THREADS;
    queue_count--;
    return t;
}

static void take_over(Thread &t) {
    current = &t;
    threadIdx = t.index;
}

// The running thread waits: others run until one of them makes it runnable.
static void wait() {
    Thread *from = current, *to = pop();
    if (to == nullptr) {  // no thread can run: a deadlock
        switch_to(contexts[from - threads], main_context);
    } else if (to != from) {
        if (to->state == FRESH) make_context(*to);
        take_over(*to);
        switch_to(contexts[from - threads], contexts[to - threads]);
    }
}

static void release_barrier() {
    votes_of_last_barrier = n_votes;
    n_arrived = n_votes = 0;
    for (int i = 0; i < n_threads; i++) {
        Thread &t = threads[order[i]];
        if (t.state == AT_BARRIER) {
            t.state = RUNS;
            push(t);
        }
    }
    note_barrier();
}

static void complete_warp(Thread &by);

// Runs a thread, then the next one that has not started, on the same stack.
static void fiber() {
    for (;;) {
        entry(arguments);
        Thread &t = *current;
        uint64_t canary;
        memcpy(&canary, t.stack_low, sizeof canary);
        if (canary != CANARY)
            fault("stack overflow", "local variables of %s need more than %zu KiB",
                  describe(t).text, STACK >> 10);
        t.state = DONE;
        n_alive--;
        check_barrier(t);
        if (n_arrived > 0 && n_arrived == n_alive) release_barrier();
        for (int i = t.id & ~31; n_at_warp > 0 && i < n_threads && i <= (t.id | 31); i++)
            if (threads[i].state == AT_WARP) complete_warp(threads[i]);
        Thread *to = pop();
        if (to != nullptr && to->state == FRESH) {
            to->stack = t.stack;
            to->stack_low = t.stack_low;
            to->stack_high = t.stack_high;
            to->state = RUNS;
            take_over(*to);
            continue;
        }
        free_stacks[n_free++] = t.stack;
        if (to == nullptr) {
            switch_to(contexts[t.id], main_context);
        } else {
            take_over(*to);
            switch_to(contexts[t.id], contexts[to->id]);
        }
    }
}

// --- waiting for one another ----------------------------------------------------------------------

int emu_in_warp() { return current->id & 31; }

int emu_barrier(int vote, const char *file, int line) {
    asm volatile("" ::: "memory");
    stop_if_late(file, line);
    Thread &t = *current;
    t.what = "__syncthreads";
    t.file = file;
    t.line = line;
    n_votes += vote;
    n_arrived++;
    t.state = AT_BARRIER;
    check_barrier(t);
    if (n_arrived == n_alive) release_barrier();
    wait();
    return votes_of_last_barrier;
}

// Lets the threads that `by` waits for go on, if all of them have arrived.
static void complete_warp(Thread &by) {
    int first = by.id & ~31;
    unsigned ballot = 0;
    for (int i = 31; i >= 0; i--) {  // downwards: it is mostly a later thread that is missing
        if (!(by.mask >> i & 1) || first + i >= n_threads) continue;
        Thread &t = threads[first + i];
        if (t.state == DONE) continue;
        if (t.state != AT_WARP || t.mask != by.mask) return;
        if (t.value != 0) ballot |= 1u << i;
    }
    check_warp(by);
    for (int i = 0; i < 32; i++) {
        Thread &t = threads[first + i];
        if (!(by.mask >> i & 1) || first + i >= n_threads || t.state == DONE) continue;
        t.result.value = t.source < 0 ? 0 : threads[first + t.source].value;
        t.result.ballot = ballot;
        t.state = RUNS;
        n_at_warp--;
        push(t);
    }
}

EmuWarp emu_warp(const char *what, unsigned mask, uint64_t value, int source, const char *file,
                 int line) {
    asm volatile("" ::: "memory");
    stop_if_late(file, line);
    Thread &t = *current;
    t.what = what;
    t.file = file;
    t.line = line;
    t.mask = mask;
    t.value = value;
    t.source = source;
    if (!(mask >> (t.id & 31) & 1))
        fault("warp", "%s calls %s at <at %s:%d> with mask 0x%x, which does not name it: it is "
              "thread %d of its warp", describe(t).text, what, file, line, mask, t.id & 31);
    if (source >= 32 || source < -1)
        fault("warp", "%s at <at %s:%d>: %s reads from thread %d of its warp", what, file, line,
              describe(t).text, source);
    t.state = AT_WARP;
    n_at_warp++;
    complete_warp(t);
    wait();
    return t.result;
}

// --- faults ---------------------------------------------------------------------------------------

Text describe(uint3 thread, uint3 block) {
    Text text;
    snprintf(text.text, sizeof text.text, "thread (%u, %u, %u) of block (%u, %u, %u)", thread.x,
             thread.y, thread.z, block.x, block.y, block.z);
    return text;
}

Text describe(const Thread &t) { return describe(t.index, blockIdx); }

void fault(const char *kind, const char *format, ...) {
    size_t n = snprintf(fault_text, sizeof fault_text, "%s|", kind);
    va_list values;
    va_start(values, format);
    vsnprintf(fault_text + n, sizeof fault_text - n, format, values);
    va_end(values);
    if (current == nullptr && host_fault) host_fault(fault_text);
    Context abandoned;
    switch_to(current ? contexts[current->id] : abandoned, main_context);
    __builtin_unreachable();
}

// No thread can run, and some have not returned: reports where they wait.
static void report_deadlock() {
    const Thread *waiting[8];
    int counts[8] = {}, n = 0;
    for (int i = 0; i < n_threads; i++) {
        const Thread &t = threads[i];
        if (t.state == DONE) continue;
        int k = 0;
        while (k < n && (waiting[k]->what != t.what || waiting[k]->line != t.line)) k++;
        if (k == 8) continue;
        if (k == n) waiting[n++] = &t;
        counts[k]++;
    }
    char text[2048];
    size_t length = 0;
    for (int k = 0; k < n; k++)
        length += snprintf(text + length, sizeof text - length, "%s%d wait at %s of <at %s:%d>",
                           k ? ", " : "", counts[k], waiting[k]->what, waiting[k]->file,
                           waiting[k]->line);
    snprintf(fault_text, sizeof fault_text,
             "deadlock|of the threads of block (%u, %u, %u) %s; %d have ended", blockIdx.x,
             blockIdx.y, blockIdx.z, text, n_threads - n_alive);
}

// --- a launch that never ends ---------------------------------------------------------------------

EXPORT double emu_seconds = 0;  // of CPU time that a launch may take; 0: any
volatile sig_atomic_t time_is_up;

extern char __ehdr_start __attribute__((visibility("hidden")));

void endless(void *pc) {
    fault("endless", "%s is at <pc %lx> after %g seconds", describe(*current).text,
          (unsigned long)((char *)pc - &__ehdr_start), emu_seconds);
}

static void stop_if_late(const char *file, int line) {
    if (time_is_up)
        fault("endless", "%s is at <at %s:%d> after %g seconds", describe(*current).text, file,
              line, emu_seconds);
}

// A signal may come in the middle of malloc, so only a flag is set: the next access or barrier ends
// the launch. If there is none before the next signal, the kernel is in a loop without any.
static void on_time(int, siginfo_t *, void *registers) {
    if (current == nullptr) return;
    if (!time_is_up) {
        time_is_up = 1;
        return;
    }
#ifdef __x86_64__
    endless((void *)((ucontext_t *)registers)->uc_mcontext.gregs[REG_RIP]);
#else
    endless((void *)((ucontext_t *)registers)->uc_mcontext.pc);
#endif
}

static struct Clock {  // signals this thread when its seconds are over, and each second after
    int timer, is_set;
    struct sigaction before;

    void start() {
        time_is_up = is_set = 0;
        if (emu_seconds <= 0) return;
        struct sigaction action = {};
        action.sa_sigaction = on_time;
        action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART;  // on_time may not return
        sigaction(SIGRTMIN + 5, &action, &before);
        sigevent event = {};
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = SIGRTMIN + 5;
        event._sigev_un._tid = syscall(SYS_gettid);
        // The system's calls: not every C library has these functions without -lrt.
        is_set = syscall(SYS_timer_create, CLOCK_THREAD_CPUTIME_ID, &event, &timer) == 0;
        double whole = (long)emu_seconds;
        itimerspec after = {{1, 0}, {(time_t)whole, (long)((emu_seconds - whole) * 1e9)}};
        if (is_set) syscall(SYS_timer_settime, timer, 0, &after, nullptr);
    }
    void stop() {
        if (is_set) syscall(SYS_timer_delete, timer);
        if (emu_seconds > 0) sigaction(SIGRTMIN + 5, &before, nullptr);
    }
} limit;

// --- a launch -------------------------------------------------------------------------------------

// The order of threads or blocks. Seed 0: ascending; 1: descending; others: shuffled.
static void shuffle(int *values, int n, unsigned seed) {
    for (int i = 0; i < n; i++) values[i] = seed == 1 ? n - 1 - i : i;
    uint64_t state = seed * 0x9e3779b97f4a7c15;
    for (int i = n - 1; i > 0 && seed > 1; i--) {
        state = state * 6364136223846793005 + 1442695040888963407;
        int j = (state >> 33) % (i + 1), value = values[i];
        values[i] = values[j];
        values[j] = value;
    }
}

static void run_block() {
    n_alive = n_threads;
    n_arrived = n_at_warp = n_votes = queue_first = queue_count = 0;
    for (int i = 0; i < n_threads; i++) {
        threads[order[i]].state = FRESH;
        push(threads[order[i]]);
    }
    Thread *first = pop();
    make_context(*first);
    take_over(*first);
    switch_to(main_context, contexts[first->id]);
    if (fault_text[0] == 0 && n_alive > 0) report_deadlock();
    current = nullptr;
}

// Runs a kernel. Returns a fault as "kind|message", or null. `stack_memory` holds MAX_THREADS stacks.
const char *emu_launch(const EmuKernel *kernel, const unsigned *grid, const unsigned *block,
                       void **values, char *stack_memory, unsigned seed) {
    entry = kernel->run;
    arguments = values;
    stacks = stack_memory;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    n_threads = block[0] * block[1] * block[2];
    fault_text[0] = 0;
    shuffle(order, n_threads, seed);
    for (int i = 0; i < n_threads; i++) {
        threads[i].id = i;
        threads[i].index = index_of(i);
    }
    n_free = MAX_THREADS;
    for (int i = 0; i < MAX_THREADS; i++) free_stacks[i] = i;
    int n_blocks = grid[0] * grid[1] * grid[2];
    int *blocks = (int *)malloc(n_blocks * sizeof(int));
    shuffle(blocks, n_blocks, seed);
    limit.start();
    for (int i = 0; i < n_blocks && fault_text[0] == 0; i++) {
        unsigned b = blocks[i];
        blockIdx = {b % grid[0], b / grid[0] % grid[1], b / (grid[0] * grid[1])};
        note_block();
        run_block();
    }
    limit.stop();
    free(blocks);
    return fault_text[0] ? fault_text : nullptr;
}

EXPORT const size_t emu_stack_bytes = STACK * MAX_THREADS;
