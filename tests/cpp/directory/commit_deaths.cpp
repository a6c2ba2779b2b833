// Processes that die while they change names or flush, at any instruction.
#include "directory/arena_names.hpp"

#include "support/kills.hpp"
#include "support/stepping.hpp"

#include <functional>

namespace ndarena::directory {
namespace {

class CommitDeaths : public StoreTest {
protected:
    static constexpr std::uint64_t names = 70;  // of two levels

    void SetUp() override {
        if (test::under_sanitizer) {
            GTEST_SKIP() << "a sanitizer's own instructions would be stepped through";
        }
        if (!test::stepped_child([] {}, [] {}).permitted()) {
            GTEST_SKIP() << "tracing child processes is not permitted here";
        }
    }

    heap_ptr make() {
        (void)::unlink(path_.c_str());
        const auto h = create_names();
        EXPECT_TRUE(store::of(*h).begin(0));
        for (std::uint64_t i = 0; i < names; ++i) {
            put_surely(*h, "some name " + std::to_string(i), 700 + i, i);
        }
        EXPECT_TRUE(store::of(*h).commit());
        EXPECT_TRUE(h->flush());
        return h;
    }
    // `is_done`: the state after the operation, none of it before.
    using operation = std::function<void(heap::heap&)>;
    using question = std::function<bool(heap::heap&)>;

    void expect_sound(heap::heap& h, std::uint64_t blocks_before, std::uint64_t blocks_after,
                      const question& is_done) {
        h.reclaim(0);
        ASSERT_EQ(all_findings(h), "");
        auto flushed = h.flush();
        ASSERT_TRUE(flushed) << flushed.err().message;
        ASSERT_EQ(all_findings(h), "");
        const bool done = is_done(h);
        ASSERT_EQ(h.stats().n_blocks, done ? blocks_after : blocks_before);
        ASSERT_EQ(h.stats().processes, 1U);
        for (std::uint64_t i = 10; i < names; ++i) {
            ASSERT_TRUE(has(h, "some name " + std::to_string(i), 700 + i, i)) << i;
        }
        ASSERT_TRUE(put(h, "life goes on", 4000, 1));
        ASSERT_EQ(all_findings(h), "");
    }

    void sweep(const operation& prepare, const operation& operate, const question& is_done,
               int deaths = 12) {
        long steps = 0;
        std::uint64_t before = 0;
        std::uint64_t after = 0;
        {
            const auto h = make();
            before = h->stats().n_blocks;
            test::stepped_child whole([&] { prepare(*h); }, [&] { operate(*h); });
            while (whole.step()) {
                ++steps;
            }
            ASSERT_TRUE(whole.finished());
            h->reclaim(0);
            ASSERT_TRUE(h->flush());
            after = h->stats().n_blocks;
            ASSERT_NO_FATAL_FAILURE(expect_sound(*h, before, after, is_done));
        }
        ASSERT_GT(steps, 200);
        deaths = static_cast<int>(std::min<long>(test::scaled_kills(deaths), steps));
        test::count_deaths(deaths, steps);
        for (int i = 0; i < deaths && !HasFatalFailure(); ++i) {
            const auto h = make();
            const long boundary = steps * i / deaths + (deaths < steps ? i * 37 % 11 : 0);
            test::stepped_child victim([&] { prepare(*h); }, [&] { operate(*h); });
            for (long n = 0; n < boundary && victim.step(); ++n) {
            }
            victim.kill();
            SCOPED_TRACE("killed after " + std::to_string(boundary) + " of " +
                         std::to_string(steps) + " instructions");
            expect_sound(*h, before, after, is_done);
        }
    }
    static void nothing(heap::heap&) {}
};

TEST_F(CommitDeaths, Put) {
    sweep(
        nothing, [](heap::heap& h) { (void)put(h, "new", 5000, 99); },
        [](heap::heap& h) { return is_there(h, "new"); });
}

TEST_F(CommitDeaths, Replace) {
    sweep(
        nothing, [](heap::heap& h) { (void)put(h, "some name 3", 5000, 99); },
        [](heap::heap& h) {
            const bool done = has(h, "some name 3", 5000, 99);
            EXPECT_TRUE(done || has(h, "some name 3", 703, 3));
            return done;
        });
}

TEST_F(CommitDeaths, Erase) {
    sweep(
        nothing, [](heap::heap& h) { (void)store::of(h).erase("some name 5"); },
        [](heap::heap& h) { return !is_there(h, "some name 5"); });
}

// Only the commit: the child has collected its changes before.
TEST_F(CommitDeaths, CommitOfMany) {
    sweep(
        [](heap::heap& h) {
            (void)store::of(h).begin(0);
            for (std::uint64_t i = 0; i < 10; ++i) {
                (void)put(h, "some name " + std::to_string(i), 3000, 100 + i);
                (void)put(h, "more " + std::to_string(i), 3000, 200 + i);
            }
            (void)store::of(h).erase("some name 9");
        },
        [](heap::heap& h) { (void)store::of(h).commit(); },
        [](heap::heap& h) {
            const bool done = is_there(h, "more 0");
            for (std::uint64_t i = 0; i < 10; ++i) {
                const std::string n = std::to_string(i);
                EXPECT_EQ(has(h, "more " + n, 3000, 200 + i), done);
                EXPECT_EQ(has(h, "some name " + n, 3000, 100 + i), done && i != 9);
                EXPECT_EQ(has(h, "some name " + n, 700 + i, i), !done);
            }
            return done;
        },
        10);
}

TEST_F(CommitDeaths, FlushThatReleases) {
    sweep(
        [](heap::heap& h) {
            for (std::uint64_t i = 0; i < 10; ++i) {
                (void)put(h, "some name " + std::to_string(i), 3000, 100 + i);
            }
        },
        [](heap::heap& h) { (void)h.flush(); }, [](heap::heap&) { return true; });
}

// Whoever finds a dead writer's commit may die in finishing it.
TEST_F(CommitDeaths, ReclaimOfADeadWriter) {
    sweep(
        [](heap::heap& h) {
            (void)test::in_child([&] {
                (void)put(h, "some name 1", 3000, 100);
                (void)store::of(h).begin(0);
                (void)put(h, "some name 2", 3000, 100);
            });
        },
        [](heap::heap& h) { (void)h.reclaim(0); }, [](heap::heap&) { return true; });
}

// The new names are there with the commit, what follows from it is not yet. A
// writer that is stopped in between may take its time; whoever reads may not see
// half of it.
TEST_F(CommitDeaths, ReadingWhileAWriterIsHeldUpAfterItsCommit) {
    const auto h = make();
    const segment::control_page& c = h->seg().control();
    int looked = 0;
    for (const bool dies : {false, true}) {
        const std::string name = dies ? "some name 2" : "some name 1";
        test::stepped_child writer(
            [&] {
                (void)store::of(*h).begin(0);
                (void)put(*h, name, 3000, 100);
                (void)put(*h, name + " more", 3000, 200);
            },
            [&] { (void)store::of(*h).commit(); });
        while (writer.step() &&
               (c.ledger == tlsf::nil || c.heap_lock.load(std::memory_order_acquire) != 0)) {
        }
        ASSERT_TRUE(writer.running()) << "it was never between the two";
        ++looked;
        if (dies) {
            writer.kill();
        }
        EXPECT_TRUE(has(*h, name + " more", 3000, 200));
        EXPECT_TRUE(has(*h, name, 3000, 100));
        while (writer.step()) {
        }
        EXPECT_TRUE(dies || writer.finished());
    }
    EXPECT_EQ(looked, 2);
    h->reclaim(0);
    EXPECT_EQ(all_findings(*h), "");
}

}  // namespace
}  // namespace ndarena::directory
