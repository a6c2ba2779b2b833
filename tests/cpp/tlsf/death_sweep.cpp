// Death at every instruction of an operation. A SIGKILL leaves the memory as
// it is between two instructions: a child works in shared memory step by step,
// and whenever the memory has changed, recovery has to cope with a copy of it.
#include "tlsf/fixture.hpp"

#include "support/build.hpp"
#include "support/stepping.hpp"

#include <functional>
#include <set>

namespace ndarena::tlsf {
namespace {

constexpr std::uint64_t world_size = 4 * mebibyte;

class DeathSweep : public ::testing::Test {
protected:
    using operation = std::function<void(world&)>;

    void SetUp() override {
        if (test::under_sanitizer) {
            GTEST_SKIP() << "a sanitizer's own instructions would be stepped through";
        }
        for (world* w : {&live_, &copy_}) {
            w->heap().extend(3 * mebibyte, false, 1);
            w->commit();
            // Blocks 1 to 12 with gaps; some freed ones wait for purging.
            for (int i = 0; i < 12; ++i) {
                const placement p = w->heap().allocate(i % 3 == 0 ? 131072 : 4096, 64, 1);
                w->record(p.record).payload = p.size;
                w->commit();
                blocks_[static_cast<std::size_t>(i)] = p.record;
            }
            for (const std::size_t i : {0U, 2U, 6U, 8U}) {
                w->heap().release(blocks_[i], w->record(blocks_[i]).size, 2 + i);
                w->commit();
            }
        }
        metadata_ = live_.geo().data_offset() + live_.geo().chunk_bytes();
        ASSERT_EQ(describe(live_), describe(copy_));
    }

    // Takes a child through `operate`; the states that recovery finds.
    std::set<std::string> sweep(const operation& operate) {
        std::set<std::string> found;
        test::stepped_child worker([] {}, [&] { operate(live_); });
        if (!worker.permitted()) {
            ADD_FAILURE() << "tracing is not permitted";
            return found;
        }
        std::vector<std::byte> last(metadata_);
        do {
            if (std::memcmp(last.data(), live_.base(), metadata_) == 0) {
                continue;
            }
            ++images_;
            std::memcpy(last.data(), live_.base(), metadata_);
            std::memcpy(copy_.base(), live_.base(), metadata_);
            copy_.forget();
            copy_.table().roll_back();
            const auto findings = copy_.check();
            found.insert(findings.empty() ? describe(copy_) : "unsound: " + findings.front());
        } while (worker.step());
        EXPECT_TRUE(worker.finished());
        return found;
    }
    static bool can_trace() {
        return test::stepped_child([] {}, [] {}).permitted();
    }
    // Every death leads to the state before or after, and both occur.
    void expect_all_or_nothing(const operation& operate) {
        if (!can_trace()) {
            GTEST_SKIP() << "tracing child processes is not permitted here";
        }
        const std::string before = describe(live_);
        const auto found = sweep(operate);
        const std::string after = describe(live_);
        EXPECT_NE(before, after);
        EXPECT_EQ(found, (std::set<std::string>{before, after}));
        EXPECT_GE(images_, 10);
    }

    world live_{world_size, 0, true};
    world copy_{world_size};
    std::array<std::uint32_t, 12> blocks_{};
    std::uint64_t metadata_ = 0;
    int images_ = 0;
};

TEST_F(DeathSweep, Allocate) {
    expect_all_or_nothing([](world& w) {
        const placement p = w.heap().allocate(8192, 64, 50);
        w.table().undo().set(w.record(p.record).payload, p.size);
        w.table().undo().commit();
    });
}
TEST_F(DeathSweep, AllocateAligned) {
    expect_all_or_nothing([](world& w) {
        const placement p = w.heap().allocate(8192, 65536, 50);
        w.table().undo().set(w.record(p.record).payload, p.size);
        w.table().undo().commit();
    });
}
TEST_F(DeathSweep, AllocateAnExactFit) {
    expect_all_or_nothing([](world& w) {
        const placement p = w.heap().allocate(131072, 64, 50);
        w.table().undo().set(w.record(p.record).payload, p.size);
        w.table().undo().commit();
    });
}
TEST_F(DeathSweep, Release) {
    expect_all_or_nothing([this](world& w) {
        w.heap().release(blocks_[4], w.record(blocks_[4]).size, 50);
        w.table().undo().commit();
    });
}
TEST_F(DeathSweep, ReleaseBetweenFreeNeighbours) {
    expect_all_or_nothing([this](world& w) {
        w.heap().release(blocks_[7], w.record(blocks_[7]).size, 50);
        w.table().undo().commit();
    });
}
TEST_F(DeathSweep, Grow) {
    expect_all_or_nothing([this](world& w) {
        placement grown;
        if (w.heap().resize(blocks_[1], w.record(blocks_[1]).size + 4096, 50, grown)) {
            w.table().undo().set(w.record(blocks_[1]).payload, grown.size);
        }
        w.table().undo().commit();
    });
}
// What is left of the free neighbour stays on its list: only its extent is noted.
TEST_F(DeathSweep, GrowIntoAPartOfALargeBlock) {
    const std::uint32_t rest = live_.record(blocks_[11]).next_physical;
    ASSERT_NE(rest, nil);
    ASSERT_TRUE(class_of(live_.record(rest).size) == class_of(live_.record(rest).size - 4096));
    expect_all_or_nothing([this](world& w) {
        placement grown;
        if (w.heap().resize(blocks_[11], w.record(blocks_[11]).size + 4096, 50, grown)) {
            w.table().undo().set(w.record(blocks_[11]).payload, grown.size);
        }
        w.table().undo().commit();
    });
}
TEST_F(DeathSweep, Shrink) {
    expect_all_or_nothing([this](world& w) {
        placement shrunk;
        if (w.heap().resize(blocks_[3], 65536, 50, shrunk)) {
            w.table().undo().set(w.record(blocks_[3]).payload, shrunk.size);
        }
        w.table().undo().commit();
    });
}
TEST_F(DeathSweep, Extend) {
    expect_all_or_nothing([](world& w) {
        w.heap().extend(w.control().watermark + 65536, false, 50);
        w.table().undo().commit();
    });
}
TEST_F(DeathSweep, ExtendWithinAClass) {
    const std::uint64_t last = live_.record(live_.control().last_block).size;
    ASSERT_TRUE(class_of(last) == class_of(last + 4096));
    expect_all_or_nothing([](world& w) {
        w.heap().extend(w.control().watermark + 4096, false, 50);
        w.table().undo().commit();
    });
}
TEST_F(DeathSweep, TakeForPurge) {
    expect_all_or_nothing([](world& w) {
        (void)w.heap().take_for_purge(100);
        w.table().undo().commit();
    });
}
TEST_F(DeathSweep, FinishPurge) {
    for (world* w : {&live_, &copy_}) {
        ASSERT_NE(w->heap().take_for_purge(100), nil);
        w->commit();
    }
    expect_all_or_nothing([](world& w) {
        for (std::uint32_t i = 0; i < w.control().record_bump; ++i) {
            if (w.record(i).state == block_state::punching) {
                w.heap().finish_purge(i, true, 50);
            }
        }
        w.table().undo().commit();
    });
}

// Death while the log of a dead process is played back.
TEST_F(DeathSweep, RollBack) {
    if (!can_trace()) {
        GTEST_SKIP() << "tracing child processes is not permitted here";
    }
    const std::string before = describe(live_);
    live_.heap().release(blocks_[7], live_.record(blocks_[7]).size, 50);
    EXPECT_EQ(sweep([](world& w) { w.table().roll_back(); }), std::set<std::string>{before});
    EXPECT_EQ(describe(live_), before);
}

// The control: the sweep finds a store that comes before its note.
TEST_F(DeathSweep, FindsAPlantedBug) {
    if (!can_trace()) {
        GTEST_SKIP() << "tracing child processes is not permitted here";
    }
    const std::string before = describe(live_);
    const auto found = sweep([](world& w) {
        auto* count = static_cast<volatile std::uint32_t*>(&w.control().free_count);
        *count = *count + 1;
        w.table().undo().note(&w.control().free_count);
        w.table().undo().set(w.control().allocated_count, w.control().allocated_count + 1);
        *count = *count - 1;
        w.control().allocated_count -= 1;
        w.table().undo().commit();
    });
    EXPECT_GT(found.size(), 1U);
}

}  // namespace
}  // namespace ndarena::tlsf
