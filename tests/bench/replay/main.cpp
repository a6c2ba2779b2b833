// Replays one trace through one allocator and prints one JSON object.
//
//   ndarena_replay TRACE ALLOCATOR [--min-size N] [--records N] [--dir DIRECTORY] [--idle-threads
//   N]
//
// One process measures one pair, so that none finds the heap of another. The
// driver, replay.py, decides on order and rounds.
#include "replay/allocators.hpp"
#include "replay/measure.hpp"

#include <cstdio>
#include <cstring>
#include <future>
#include <limits>
#include <string>
#include <thread>
#include <vector>

namespace ndarena::bench {
namespace {

struct arguments {
    std::string trace;
    std::string allocator;
    std::string directory = "/tmp";
    std::uint64_t min_size = 0;
    std::uint64_t records = std::numeric_limits<std::uint64_t>::max();
    std::uint64_t idle_threads = 0;  // besides the one that replays
};

// Threads that wait: with them allocators can no longer do without locked instructions.
class company {
public:
    explicit company(std::uint64_t threads) {
        const std::shared_future<void> end = end_.get_future().share();
        for (std::uint64_t i = 0; i < threads; ++i) {
            threads_.emplace_back([end] { end.wait(); });
        }
    }
    ~company() {
        end_.set_value();
        for (std::thread& t : threads_) {
            t.join();
        }
    }
    company(const company&) = delete;
    company& operator=(const company&) = delete;

private:
    std::promise<void> end_;
    std::vector<std::thread> threads_;
};

bool parse(int argc, char** argv, arguments& a) {
    if (argc < 3) {
        return false;
    }
    a.trace = argv[1];
    a.allocator = argv[2];
    for (int i = 3; i + 1 < argc; i += 2) {
        const std::string name = argv[i];
        if (name == "--dir") {
            a.directory = argv[i + 1];
        } else if (name == "--min-size") {
            a.min_size = std::strtoull(argv[i + 1], nullptr, 10);
        } else if (name == "--idle-threads") {
            a.idle_threads = std::strtoull(argv[i + 1], nullptr, 10);
        } else if (name == "--records") {
            a.records = std::strtoull(argv[i + 1], nullptr, 10);
        } else {
            return false;
        }
    }
    return argc % 2 == 1;
}

template <class A>
outcome measure(const trace& t, A& allocator, const stopwatch& watch) {
    return replay<A>(t, allocator).run(watch);
}

result<arena> open_ours(const arguments& a, void* memory) {
    const arena_options options{arena_bytes, 0, 0600};
    if (a.allocator == "ndarena_disk") {
        return arena::scratch(a.directory, options);
    }
    if (a.allocator == "ndarena_tmpfs") {
        return arena::scratch("/dev/shm", options);
    }
    if (a.allocator == "ndarena_shared") {
        const std::string name = "ndarena-replay-" + std::to_string(::getpid());
        auto opened = arena::shared(name, mode::create, options);
        if (opened) {
            (void)opened->unlink();
        }
        return opened;
    }
    return arena::over(memory, arena_bytes, false, options);
}

outcome measure_ours(const trace& t, const arguments& a, const stopwatch& watch) {
    outcome o;
    {
        const buffer memory;
        auto opened = open_ours(a, memory.data());
        if (!opened) {
            o.failure = opened.err().message;
            return o;
        }
        ours allocator(*opened);
        o = measure(t, allocator, watch);
    }
    const buffer memory;
    auto opened = open_ours(a, memory.data());
    if (opened && o.failure.empty()) {
        ours allocator(*opened);
        o.high_water = replay<ours>(t, allocator).high_water();
        for (const std::string& finding : opened->check()) {
            o.failure += finding + "; ";
        }
    }
    return o;
}

outcome measure_best_fit(const trace& t, std::size_t alignment, const stopwatch& watch) {
    outcome o;
    {
        const buffer memory;
        best_fit allocator(memory.data(), alignment);
        o = measure(t, allocator, watch);
    }
    const buffer memory;
    best_fit allocator(memory.data(), alignment);
    if (o.failure.empty()) {
        o.high_water = replay<best_fit>(t, allocator).high_water();
    }
    return o;
}

outcome measure_malloc(const trace& t, const arguments& a, const stopwatch& watch) {
    struct known {
        const char* name;
        const char* library;
        const char* prefix;
        std::size_t alignment;
    };
    static constexpr known all[] = {
        {"glibc", "", "", 0},
        {"glibc_64", "", "", wide},
        {"mimalloc", "libmimalloc.so.2", "mi_", 0},
        {"mimalloc_64", "libmimalloc.so.2", "mi_", wide},
        {"jemalloc", "libjemalloc.so.2", "", 0},
        {"jemalloc_64", "libjemalloc.so.2", "", wide},
    };
    outcome o;
    for (const known& k : all) {
        if (a.allocator == k.name) {
            malloc_like allocator;
            o.failure = allocator.load(k.library, k.prefix, k.alignment);
            return o.failure.empty() ? measure(t, allocator, watch) : o;
        }
    }
    o.failure = "no such allocator";
    return o;
}

void print(const outcome& o, const trace& t) {
    std::string failure;
    for (const char c : o.failure) {
        failure += c == '"' || c == '\\' || static_cast<unsigned char>(c) < ' ' ? ' ' : c;
    }
    std::printf(
        "{\"failure\": \"%s\", \"operations\": %llu, \"cold_mean_ns\": %.2f, "
        "\"warm_mean_ns\": %.2f, \"median_ns\": %.2f, \"p999_ns\": %.2f, \"timer_ns\": %.2f, "
        "\"cold_faults\": %llu, \"warm_faults\": %llu, \"high_water\": %llu, "
        "\"peak_live\": %llu}\n",
        failure.c_str(), static_cast<unsigned long long>(o.operations), o.cold_mean, o.warm_mean,
        o.median, o.p999, o.timer, static_cast<unsigned long long>(o.cold_faults),
        static_cast<unsigned long long>(o.warm_faults),
        static_cast<unsigned long long>(o.high_water),
        static_cast<unsigned long long>(t.peak_bytes));
}

int run(int argc, char** argv) {
    arguments a;
    if (!parse(argc, argv, a)) {
        std::fputs(
            "usage: ndarena_replay TRACE ALLOCATOR [--min-size N] [--records N] [--dir D] "
            "[--idle-threads N]\n",
            stderr);
        return 2;
    }
    trace t;
    const std::string wrong = read_trace(a.trace, a.min_size, a.records, t);
    if (!wrong.empty() || t.steps.empty()) {
        std::fprintf(stderr, "%s\n", wrong.empty() ? "nothing to replay" : wrong.c_str());
        return 2;
    }
    const company others(a.idle_threads);
    const stopwatch watch;
    outcome o;
    if (a.allocator.rfind("ndarena_", 0) == 0) {
        o = measure_ours(t, a, watch);
    } else if (a.allocator == "boost") {
        o = measure_best_fit(t, 0, watch);
    } else if (a.allocator == "boost_64") {
        o = measure_best_fit(t, wide, watch);
    } else {
        o = measure_malloc(t, a, watch);
    }
    print(o, t);
    return 0;
}

}  // namespace
}  // namespace ndarena::bench

int main(int argc, char** argv) { return ndarena::bench::run(argc, argv); }
