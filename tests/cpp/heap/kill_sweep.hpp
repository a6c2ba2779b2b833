// Children killed at chosen instructions of an operation, and what is left.
#pragma once

#include "heap/fixture.hpp"

#include "support/kills.hpp"
#include "support/stepping.hpp"

#include <algorithm>
#include <functional>

namespace ndarena::heap {

class KillSweepTest : public HeapTest {
protected:
    // An arena of this process with a few blocks, and a child that works in it.
    struct scene {
        std::shared_ptr<heap> h;
        std::vector<void*> kept;
    };
    using operation = std::function<void(scene&)>;

    void SetUp() override {
        if (test::under_sanitizer) {
            GTEST_SKIP() << "a sanitizer's own instructions would be stepped through";
        }
        if (!test::stepped_child([] {}, [] {}).permitted()) {
            GTEST_SKIP() << "tracing child processes is not permitted here";
        }
    }

    // Before the arena of each death is made.
    virtual void begin() {}
    scene make_scene() {
        begin();
        (void)::unlink(path_.c_str());
        scene s{create(8 * mib), {}};
        for (std::uint64_t i = 0; i < 6; ++i) {
            s.kept.push_back(s.h->allocate(5000 + i * 30000, 0, false));
            fill(s.kept.back(), 5000 + i * 30000, i);
        }
        s.h->deallocate(s.kept[2]);
        s.h->deallocate(s.kept[4]);
        s.kept[2] = s.kept[4] = nullptr;
        return s;
    }
    static void expect_sound(const scene& s) {
        ASSERT_EQ(findings_of(*s.h), "");
        s.h->reclaim(0);
        ASSERT_EQ(findings_of(*s.h), "");
        ASSERT_EQ(s.h->stats().n_blocks, 4U) << "nothing leaked, nothing lost";
        ASSERT_EQ(s.h->stats().in_transit, 0U);
        ASSERT_EQ(s.h->stats().processes, 1U);
        for (std::uint64_t i = 0; i < s.kept.size(); ++i) {
            ASSERT_TRUE(s.kept[i] == nullptr || holds(s.kept[i], 5000 + i * 30000, i));
        }
        void* p = s.h->allocate(100 * kib, 0, true);
        ASSERT_NE(p, nullptr) << s.h->refusal();
        ASSERT_TRUE(is_zero(p, 100 * kib));
    }
    // Both run in the child, the second step by step until its death. `after`
    // runs in the parent before it looks.
    void sweep(const operation& prepare, const operation& operate, int deaths = 60,
               const operation& after = nothing) {
        long steps = 0;
        {
            scene s = make_scene();
            test::stepped_child whole([&] { prepare(s); }, [&] { operate(s); });
            while (whole.step()) {
                ++steps;
            }
            ASSERT_TRUE(whole.finished());
            after(s);
            expect_sound(s);
        }
        ASSERT_GT(steps, 200);
        deaths = static_cast<int>(std::min<long>(test::scaled_kills(deaths), steps));
        test::count_deaths(deaths, steps);
        for (int i = 0; i < deaths && !HasFatalFailure(); ++i) {
            scene s = make_scene();
            const long boundary = steps * i / deaths + (deaths < steps ? i * 37 % 11 : 0);
            test::stepped_child victim([&] { prepare(s); }, [&] { operate(s); });
            for (long n = 0; n < boundary && victim.step(); ++n) {
            }
            victim.kill();
            SCOPED_TRACE("killed after " + std::to_string(boundary) + " of " +
                         std::to_string(steps) + " instructions");
            after(s);
            expect_sound(s);
        }
    }
    static void nothing(scene&) {}
};

}  // namespace ndarena::heap
