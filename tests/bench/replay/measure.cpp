#include "replay/measure.hpp"

#include <array>
#include <ctime>

#include <sys/resource.h>
#ifdef __x86_64__
#include <x86intrin.h>
#endif

namespace ndarena::bench {
namespace {

std::uint64_t clock_nanoseconds() noexcept {
    timespec t{};
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<std::uint64_t>(t.tv_sec) * 1000000000U +
           static_cast<std::uint64_t>(t.tv_nsec);
}

}  // namespace

std::uint64_t stopwatch::now() noexcept {
#ifdef __x86_64__
    _mm_lfence();  // what came before is done, what follows has not begun
    const std::uint64_t ticks = __rdtsc();
    _mm_lfence();
    return ticks;
#else
    return clock_nanoseconds();
#endif
}

stopwatch::stopwatch() {
    std::vector<std::uint64_t> empty(10001);
    for (std::uint64_t& ticks : empty) {
        const std::uint64_t begin = now();
        ticks = now() - begin;
    }
    std::nth_element(empty.begin(), empty.begin() + 5000, empty.end());
    cost_ = empty[5000];
#ifdef __x86_64__
    const std::uint64_t clock = clock_nanoseconds();
    const std::uint64_t ticks = now();
    while (clock_nanoseconds() - clock < 20000000U) {
    }
    nanoseconds_per_tick_ =
        static_cast<double>(clock_nanoseconds() - clock) / static_cast<double>(now() - ticks);
#endif
}

usage usage::now() {
    rusage used{};
    ::getrusage(RUSAGE_SELF, &used);
    return {clock_nanoseconds(), static_cast<std::uint64_t>(used.ru_minflt + used.ru_majflt)};
}

double quantile(std::vector<std::uint32_t>& ticks, double q, const stopwatch& watch) {
    if (ticks.empty()) {
        return 0;
    }
    const auto rank = static_cast<std::ptrdiff_t>(q * static_cast<double>(ticks.size() - 1));
    std::nth_element(ticks.begin(), ticks.begin() + rank, ticks.end());
    const std::uint64_t took = ticks[static_cast<std::size_t>(rank)];
    return watch.nanoseconds(took > watch.cost() ? took - watch.cost() : 0);
}

}  // namespace ndarena::bench
