// Counts what a warp's accesses cost, as a profiler would.
//
// Fibers run one after another, so what the lanes of a warp would do at once is put together
// afterwards: the k-th time a lane comes to an instruction since the last barrier belongs to the
// k-th time of the other lanes.

#include "runtime.h"

#include <algorithm>
#include <map>
#include <vector>

struct Request {  // of a warp
    uint32_t lanes = 0;
    uint64_t address[32];
};

struct Pending {
    std::vector<Request> requests;
    uint32_t done[32] = {};  // by each lane
};

// What an instruction cost, all warps together.
struct Site {
    uint32_t pc;
    int32_t kind, is_shared, size;
    uint64_t requests, accesses;
    uint64_t sectors, ideal;  // of 32 bytes: touched, and as few as could hold the bytes
    uint64_t conflicts;       // rounds of the 32 banks beyond what the bytes need
};

struct Barrier {
    const char *file;
    int64_t line, count;  // one for each block that comes to it
};

bool profiling;
static std::map<std::pair<int, uint32_t>, Pending> pending;  // by warp and instruction
static std::map<uint32_t, Site> by_pc;
static std::map<std::pair<const char *, int>, int64_t> by_line;
static std::vector<Site> sites;
static std::vector<Barrier> barriers;

void profile_access(const char *p, int size, int kind, bool is_shared, uint32_t pc) {
    auto found = by_pc.try_emplace(pc, Site{pc, kind, is_shared, size, 0, 0, 0, 0, 0});
    found.first->second.is_shared = is_shared;
    Pending &waits = pending[{current->id / 32, pc}];
    const int lane = current->id % 32;
    const uint32_t k = waits.done[lane]++;
    if (k == waits.requests.size()) waits.requests.emplace_back();
    waits.requests[k].lanes |= 1u << lane;
    waits.requests[k].address[lane] = (uint64_t)p;
}

// The addresses of the lanes in [first, first + n) that take part, each once, ascending.
static std::vector<uint64_t> distinct(const Request &r, int first, int n) {
    std::vector<uint64_t> values;
    for (int lane = first; lane < first + n; lane++)
        if (r.lanes >> lane & 1) values.push_back(r.address[lane]);
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

// 32 banks of 4 bytes: in one round each gives one word, to as many lanes as want it. Of 8 bytes
// the halves of a warp take turns, of 16 bytes the quarters.
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

static void flush() {
    for (auto &[key, waits] : pending) {
        Site &site = by_pc[key.second];
        for (const Request &r : waits.requests) {
            site.requests++;
            site.accesses += __builtin_popcount(r.lanes);
            if (site.is_shared) count_shared(site, r);
            else count_global(site, r);
        }
    }
    pending.clear();
}

void profile_barrier(const Thread &at) {
    flush();
    by_line[{at.file, at.line}]++;
}

void profile_block() { flush(); }

void profile_begin() {
    pending.clear();
    by_pc.clear();
    by_line.clear();
}

void profile_end() {
    flush();
    sites.clear();
    barriers.clear();
    for (auto &[pc, site] : by_pc) sites.push_back(site);
    for (auto &[at, count] : by_line) barriers.push_back({at.first, at.second, count});
}

EXPORT int emu_sites(const Site **first) {
    *first = sites.data();
    return sites.size();
}

EXPORT int emu_barriers(const Barrier **first) {
    *first = barriers.data();
    return barriers.size();
}
