// Counts what a warp's accesses cost, as a profiler does.
//
// Fibers run one after another, so what the threads of a warp would do at once is put together
// afterwards: the k-th time since the last barrier that a thread reaches an instruction belongs to
// the k-th time of the warp's other threads.

#include "runtime.h"

#include <algorithm>
#include <map>
#include <vector>

struct Request {  // of a warp
    uint64_t number;         // in the order in which their first threads came
    const Region *array;
    uint32_t threads = 0;    // of the warp, a bit for each that takes part
    uint64_t address[32];
};

struct Pending {
    std::vector<Request> requests;
    uint32_t done[32] = {};  // by each thread of the warp
};

// What an instruction cost, in all warps.
struct Site {
    uint32_t pc;
    int32_t kind, is_shared, size;
    uint64_t requests, accesses;
    uint64_t sectors, ideal;  // of 32 bytes: touched, and the fewest that could hold the bytes
    uint64_t conflicts;       // rounds of the 32 banks beyond what the bytes need
};

struct Barrier {
    const char *file;
    int64_t line, count;  // one for each time a block meets there
};

// For a replay: a request, or the meeting of a block's threads at a barrier (kind -1).
struct Step {
    int32_t block, warp, kind, is_shared, size;
    uint32_t pc, threads;
    const char *array, *file;  // of a barrier its file
    uint64_t bytes;            // of the array; of a barrier its line
    uint64_t offset[32];       // of each thread's access in the array
};
constexpr size_t MOST_STEPS = 4096;

bool profiling;
static uint64_t n_requests;
static int block;  // the running one's number
static std::vector<Step> steps;
static std::map<std::pair<int, uint32_t>, Pending> pending;  // by warp and instruction
static std::map<uint32_t, Site> by_pc;
static std::map<std::pair<const char *, int>, int64_t> by_line;
static std::vector<Site> sites;
static std::vector<Barrier> barriers;

void profile_access(const char *p, int size, int kind, const Region &array, bool is_shared,
                    uint32_t pc) {
    auto found = by_pc.try_emplace(pc, Site{pc, kind, is_shared, size, 0, 0, 0, 0, 0});
    found.first->second.is_shared = is_shared;
    Pending &waits = pending[{current->id / 32, pc}];
    const int in_warp = current->id % 32;
    const uint32_t k = waits.done[in_warp]++;
    if (k == waits.requests.size()) waits.requests.push_back({n_requests++, &array});
    waits.requests[k].threads |= 1u << in_warp;
    waits.requests[k].address[in_warp] = (uint64_t)p;
}

// The addresses of the threads in [first, first + n) that take part, each once, ascending.
static std::vector<uint64_t> distinct(const Request &r, int first, int n) {
    std::vector<uint64_t> values;
    for (int i = first; i < first + n; i++)
        if (r.threads >> i & 1) values.push_back(r.address[i]);
    std::sort(values.begin(), values.end());
    values.erase(std::unique(values.begin(), values.end()), values.end());
    return values;
}

static void count_global(Site &site, const Request &r) {
    std::vector<uint64_t> sectors;
    uint64_t bytes = 0;
    for (uint64_t p : distinct(r, 0, 32)) {
        bytes += site.size;
        for (uint64_t s = p / 32; s <= (p + site.size - 1) / 32; s++)
            if (sectors.empty() || sectors.back() != s) sectors.push_back(s);
    }
    site.sectors += sectors.size();
    site.ideal += (bytes + 31) / 32;
}

// 32 banks of 4 bytes: in one round each bank gives one word to all threads that want it. Accesses
// of 8 bytes are made by one half of the warp at a time, those of 16 bytes by one quarter.
static void count_shared(Site &site, const Request &r) {
    const int n = site.size <= 4 ? 32 : site.size <= 8 ? 16 : 8;
    for (int first = 0; first < 32; first += n) {
        int words_of_bank[32] = {}, worst = 0;
        std::vector<uint64_t> words;
        for (uint64_t p : distinct(r, first, n))
            for (uint64_t w = p / 4; w <= (p + site.size - 1) / 4; w++)
                if (words.empty() || words.back() < w) words.push_back(w);
        for (uint64_t w : words) worst = std::max(worst, ++words_of_bank[w % 32]);
        if (worst > 0) site.conflicts += worst - 1;
    }
}

// Each warp's requests since the last barrier in their order, the warps' in turns.
static void keep_steps() {
    std::map<int, std::map<uint64_t, std::pair<uint32_t, const Request *>>> by_warp;
    for (auto &[key, waits] : pending)
        for (const Request &r : waits.requests) by_warp[key.first][r.number] = {key.second, &r};
    while (!by_warp.empty() && steps.size() < MOST_STEPS) {
        for (auto warp = by_warp.begin(); warp != by_warp.end();) {
            const auto [pc, r] = warp->second.begin()->second;
            const Site &site = by_pc[pc];
            Step step{block, warp->first, site.kind, site.is_shared, site.size, pc, r->threads,
                      r->array->name, nullptr, r->array->size, {}};
            for (int i = 0; i < 32; i++)
                if (r->threads >> i & 1)
                    step.offset[i] = r->address[i] - (uint64_t)r->array->begin;
            steps.push_back(step);
            warp->second.erase(warp->second.begin());
            warp = warp->second.empty() ? by_warp.erase(warp) : std::next(warp);
        }
    }
}

static void flush() {
    keep_steps();
    for (auto &[key, waits] : pending) {
        Site &site = by_pc[key.second];
        for (const Request &r : waits.requests) {
            site.requests++;
            site.accesses += __builtin_popcount(r.threads);
            if (site.is_shared) count_shared(site, r);
            else count_global(site, r);
        }
    }
    pending.clear();
}

void profile_barrier(const Thread &t) {
    flush();
    by_line[{t.file, t.line}]++;
    if (steps.size() < MOST_STEPS)
        steps.push_back({block, 0, -1, 0, 0, 0, 0, nullptr, t.file, (uint64_t)t.line, {}});
}

void profile_block() {
    flush();
    block++;
}

void profile_begin() {
    pending.clear();
    by_pc.clear();
    by_line.clear();
    steps.clear();
    block = -1;
    n_requests = 0;
}

void profile_end() {
    flush();
    sites.clear();
    barriers.clear();
    for (auto &[pc, site] : by_pc) sites.push_back(site);
    for (auto &[line, count] : by_line) barriers.push_back({line.first, line.second, count});
}

// Where the first one is, and how many there are.
template <class T> static int list(const std::vector<T> &all, const T **first) {
    *first = all.data();
    return all.size();
}
EXPORT int emu_sites(const Site **first) { return list(sites, first); }
EXPORT int emu_barriers(const Barrier **first) { return list(barriers, first); }
EXPORT int emu_steps(const Step **first) { return list(steps, first); }
