// Replaying a trace through one allocator, with clocks and counters.
#pragma once

#include "replay/trace.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace ndarena::bench {

// Cheap time stamps: the processor's counter where there is one.
class stopwatch {
public:
    stopwatch();  // finds out the counter's rate and what reading it costs
    static std::uint64_t now() noexcept;
    double nanoseconds(std::uint64_t ticks) const noexcept {
        return static_cast<double>(ticks) * nanoseconds_per_tick_;
    }
    std::uint64_t cost() const noexcept { return cost_; }

private:
    double nanoseconds_per_tick_ = 1.0;
    std::uint64_t cost_ = 0;
};

struct usage {
    std::uint64_t nanoseconds = 0;
    std::uint64_t faults = 0;
    static usage now();
};

struct outcome {
    std::string failure;
    std::uint64_t operations = 0;
    double cold_mean = 0;  // ns/op of the first pass, page faults and growing included
    double warm_mean = 0;  // of the second, timed as a whole
    double median = 0;     // of the third, timed one by one, the timer's cost taken off
    double p999 = 0;
    double timer = 0;
    std::uint64_t cold_faults = 0;
    std::uint64_t warm_faults = 0;
    std::uint64_t high_water = 0;  // highest end of a block over the allocator's start; 0: no start
};

double quantile(std::vector<std::uint32_t>& ticks, double q, const stopwatch& watch);

// `A` has `void* allocate(size)`, `void release(p)` and `std::byte* start()`.
// The memory handed out is never touched here.
template <class A>
class replay {
public:
    replay(const trace& t, A& allocator)
        : trace_(t), allocator_(allocator), pointers_(t.slots), ticks_(t.steps.size() + 1) {
        std::fill(ticks_.begin(), ticks_.end(), 1U);  // ours to touch, before anything is counted
    }

    outcome run(const stopwatch& watch) {
        outcome o;
        o.operations = trace_.steps.size();
        const double n = static_cast<double>(o.operations);
        usage before = usage::now();
        if (!pass([](std::size_t, auto&& operation) { operation(); })) {
            o.failure = "refused a request";
            return o;
        }
        usage after = usage::now();
        o.cold_mean = static_cast<double>(after.nanoseconds - before.nanoseconds) / n;
        o.cold_faults = after.faults - before.faults;
        release_rest();

        before = usage::now();
        (void)pass([](std::size_t, auto&& operation) { operation(); });
        after = usage::now();
        o.warm_mean = static_cast<double>(after.nanoseconds - before.nanoseconds) / n;
        o.warm_faults = after.faults - before.faults;
        release_rest();

        (void)pass([this](std::size_t i, auto&& operation) {
            const std::uint64_t begin = stopwatch::now();
            operation();
            const std::uint64_t took = stopwatch::now() - begin;
            ticks_[i] = static_cast<std::uint32_t>(std::min<std::uint64_t>(took, 0xFFFFFFFFU));
        });
        release_rest();
        ticks_.resize(trace_.steps.size());
        o.median = quantile(ticks_, 0.5, watch);
        o.p999 = quantile(ticks_, 0.999, watch);
        o.timer = watch.nanoseconds(watch.cost());
        return o;
    }

    // Of a fresh allocator, in a pass of its own: what is measured above does
    // no arithmetic on addresses.
    std::uint64_t high_water() {
        std::uintptr_t highest = 0;
        for (const step& s : trace_.steps) {
            void*& p = pointers_[s.slot];
            if (s.size == 0) {
                allocator_.release(p);
                p = nullptr;
            } else {
                p = allocator_.allocate(s.size);
                highest = std::max(highest, reinterpret_cast<std::uintptr_t>(p) + s.size);
            }
        }
        release_rest();
        return highest - reinterpret_cast<std::uintptr_t>(allocator_.start());
    }

private:
    template <class Around>
    bool pass(Around&& around) {
        std::size_t i = 0;
        for (const step& s : trace_.steps) {
            void*& p = pointers_[s.slot];
            if (s.size == 0) {
                around(i, [&] { allocator_.release(p); });
                p = nullptr;
            } else {
                around(i, [&] { p = allocator_.allocate(s.size); });
                if (p == nullptr) {
                    release_rest();
                    return false;
                }
            }
            ++i;
        }
        return true;
    }
    void release_rest() {
        for (void*& p : pointers_) {
            if (p != nullptr) {
                allocator_.release(p);
                p = nullptr;
            }
        }
    }

    const trace& trace_;
    A& allocator_;
    std::vector<void*> pointers_;
    std::vector<std::uint32_t> ticks_;
};

}  // namespace ndarena::bench
