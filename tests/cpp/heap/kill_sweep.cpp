// Processes killed at chosen instructions of whole operations, locks and
// system calls included; the others go on with a sound arena.
#include "heap/fixture.hpp"

#include "support/stepping.hpp"

#include <functional>

namespace ndarena::heap {
namespace {

class KillSweep : public HeapTest {
protected:
    using operation = std::function<void(heap&)>;

    void SetUp() override {
        if (test::under_sanitizer) {
            GTEST_SKIP() << "a sanitizer's own instructions would be stepped through";
        }
        if (!test::stepped_child([] {}, [] {}).permitted()) {
            GTEST_SKIP() << "tracing child processes is not permitted here";
        }
    }

    // An arena of this process with a few blocks, and a child that works in it.
    struct scene {
        std::shared_ptr<heap> h;
        std::vector<void*> kept;
    };
    scene make_scene() {
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
        s.h->reclaim();
        ASSERT_EQ(findings_of(*s.h), "");
        ASSERT_EQ(s.h->stats().n_blocks, 4U) << "nothing leaked, nothing lost";
        ASSERT_EQ(s.h->stats().processes, 1U);
        for (std::uint64_t i = 0; i < s.kept.size(); ++i) {
            ASSERT_TRUE(s.kept[i] == nullptr || holds(s.kept[i], 5000 + i * 30000, i));
        }
        void* p = s.h->allocate(100 * kib, 0, true);
        ASSERT_NE(p, nullptr) << s.h->refusal();
        ASSERT_TRUE(is_zero(p, 100 * kib));
    }
    void sweep(const operation& prepare, const operation& operate, int deaths = 60) {
        long steps = 0;
        {
            const scene s = make_scene();
            test::stepped_child whole([&] { prepare(*s.h); }, [&] { operate(*s.h); });
            while (whole.step()) {
                ++steps;
            }
            ASSERT_TRUE(whole.finished());
            expect_sound(s);
        }
        ASSERT_GT(steps, 200);
        for (int i = 0; i < deaths && !HasFatalFailure(); ++i) {
            const scene s = make_scene();
            const long boundary = steps * i / deaths + i * 37 % 11;
            test::stepped_child victim([&] { prepare(*s.h); }, [&] { operate(*s.h); });
            for (long n = 0; n < boundary && victim.step(); ++n) {
            }
            victim.kill();
            SCOPED_TRACE("killed after " + std::to_string(boundary) + " of " +
                         std::to_string(steps) + " instructions");
            expect_sound(s);
        }
    }
    static void nothing(heap&) {}
};

TEST_F(KillSweep, Allocate) {
    sweep(nothing, [](heap& h) { (void)h.allocate(3000, 0, false); });
}
TEST_F(KillSweep, AllocateBeyondTheWatermark) {
    sweep(nothing, [](heap& h) { (void)h.allocate(5 * mib, 0, false); });
}
TEST_F(KillSweep, AllocateAndFree) {
    sweep(nothing, [](heap& h) { h.deallocate(h.allocate(40000, 0, false)); });
}
TEST_F(KillSweep, Free) {
    static void* p = nullptr;
    sweep([](heap& h) { p = h.allocate(200 * kib, 0, false); }, [](heap& h) { h.deallocate(p); });
}
TEST_F(KillSweep, Resize) {
    static void* p = nullptr;
    sweep([](heap& h) { p = h.allocate(200 * kib, 0, false); },
          [](heap& h) {
              p = h.reallocate(p, 70 * kib);
              p = h.reallocate(p, 150 * kib);
          });
}
TEST_F(KillSweep, Purge) {
    sweep(
        [](heap& h) {
            void* p = h.allocate(mib, 0, false);
            std::memset(p, 1, mib);
            h.deallocate(p);
        },
        [](heap& h) { h.trim(); });
}
TEST_F(KillSweep, UsePunchedPages) {
    sweep(
        [](heap& h) {
            void* p = h.allocate(mib, 0, false);
            std::memset(p, 1, mib);
            h.deallocate(p);
            h.trim();
        },
        [](heap& h) { (void)h.allocate(mib, 0, false); });
}
// The tables themselves grow: a small arena has 128 records in a chunk.
TEST_F(KillSweep, AddRecords) {
    sweep(
        [](heap& h) {
            for (int i = 0; i < 107; ++i) {
                (void)h.allocate(64, 0, false);
            }
        },
        [](heap& h) {
            for (int i = 0; i < 8; ++i) {
                (void)h.allocate(64, 0, false);
            }
        },
        12);
}

}  // namespace
}  // namespace ndarena::heap
