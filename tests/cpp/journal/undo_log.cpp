#include "journal/journal.hpp"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <vector>

namespace ndarena::journal {
namespace {

using segment::undo_entry_count;
using segment::undo_page;

constexpr std::size_t words = 512;

// The memory that outlives a process: the log and some words it protects.
struct memory {
    alignas(64) std::array<std::uint64_t, words> data{};
    undo_page page{};

    std::byte* base() { return reinterpret_cast<std::byte*>(data.data()); }
    undo_log log() { return {base(), sizeof data, &page}; }
};

struct image {
    explicit image(const memory& m) : data(m.data), entries(m.page.entries), count(m.page.count) {}
    void restore(memory& m) const {
        m.data = data;
        m.page.entries = entries;
        m.page.count = count;
    }
    std::array<std::uint64_t, words> data;
    std::array<segment::undo_entry, undo_entry_count> entries;
    std::uint64_t count;
};

// An operation in small steps; after each the memory is kept, as a process
// that dies there would leave it.
class dying_writer {
public:
    explicit dying_writer(memory& m) : memory_(m), log_(m.log()) { keep(); }

    void write(std::size_t word, std::uint64_t value) {
        // Inside note: the entry is there, the count has not risen.
        const image before(memory_);
        const std::uint64_t n = memory_.page.count;
        if (n < undo_entry_count) {
            memory_.page.entries[n].offset = word * 8;
            keep();
            memory_.page.entries[n].value = memory_.data[word];
            keep();
        }
        before.restore(memory_);
        log_.note(&memory_.data[word]);
        keep();
        memory_.data[word] = value;
        keep();
    }
    // What must not be written: the store comes first.
    void write_wrongly(std::size_t word, std::uint64_t value) {
        memory_.data[word] = value;
        keep();
        log_.note(&memory_.data[word]);
        keep();
    }
    undo_log& log() { return log_; }
    const std::vector<image>& images() const { return images_; }

private:
    void keep() { images_.emplace_back(memory_); }
    memory& memory_;
    undo_log log_;
    std::vector<image> images_;
};

class UndoLog : public ::testing::Test {
protected:
    void SetUp() override {
        for (auto& word : memory_.data) {
            word = random_();
        }
    }
    bool rolls_back_to(const image& dead, const std::array<std::uint64_t, words>& expected) {
        dead.restore(memory_);
        undo_log next = memory_.log();
        next.roll_back(0, sizeof memory_.data);
        return memory_.data == expected && memory_.page.count == 0;
    }
    memory memory_;
    std::mt19937_64 random_{11};
};

TEST_F(UndoLog, CommitKeepsRollBackRestores) {
    undo_log log = memory_.log();
    const auto before = memory_.data;
    EXPECT_TRUE(log.is_empty());
    log.set(memory_.data[3], std::uint64_t{1});
    EXPECT_FALSE(log.is_empty());
    log.roll_back(0, sizeof memory_.data);
    EXPECT_EQ(memory_.data, before);
    EXPECT_TRUE(log.is_empty());
    log.set(memory_.data[3], std::uint64_t{1});
    log.commit();
    EXPECT_TRUE(log.is_empty());
    log.roll_back(0, sizeof memory_.data);
    EXPECT_EQ(memory_.data[3], 1U);
}

TEST_F(UndoLog, DeathAtEveryStepRestoresTheStateBefore) {
    for (int round = 0; round < 200; ++round) {
        const auto before = memory_.data;
        dying_writer writer(memory_);
        const auto writes = 1 + random_() % undo_entry_count;
        for (std::uint64_t i = 0; i < writes; ++i) {
            // A few words often, so that one is written several times.
            writer.write(random_() % (round % 2 == 0 ? 5 : words), random_());
        }
        for (const image& dead : writer.images()) {
            ASSERT_TRUE(rolls_back_to(dead, before));
        }
        writer.images().back().restore(memory_);
        const auto after = memory_.data;
        writer.log().commit();
        ASSERT_TRUE(rolls_back_to(image(memory_), after));
    }
}

// The control: the sweep above finds a store that comes before its note.
TEST_F(UndoLog, TheSweepFindsAPlantedBug) {
    const auto before = memory_.data;
    dying_writer writer(memory_);
    writer.write(1, 10);
    writer.write_wrongly(2, 20);
    bool found = false;
    for (const image& dead : writer.images()) {
        found = found || !rolls_back_to(dead, before);
    }
    EXPECT_TRUE(found);
}

TEST_F(UndoLog, RollingBackMayItselfBeCutShort) {
    const auto before = memory_.data;
    dying_writer writer(memory_);
    for (int i = 0; i < 40; ++i) {
        writer.write(random_() % 7, random_());
    }
    const image dead = writer.images().back();
    for (std::uint64_t done = 0; done <= dead.count; ++done) {
        // The first heir has restored `done` words, newest first, and died.
        dead.restore(memory_);
        for (std::uint64_t n = dead.count; n > dead.count - done; --n) {
            memory_.data[dead.entries[n - 1].offset / 8] = dead.entries[n - 1].value;
        }
        ASSERT_TRUE(rolls_back_to(image(memory_), before));
    }
}

TEST_F(UndoLog, NotesTheWordAroundAField) {
    struct two {
        std::uint32_t low;
        std::uint32_t high;
    };
    auto* pair = reinterpret_cast<two*>(memory_.base() + 64);
    const two before = *pair;
    undo_log log = memory_.log();
    log.set(pair->high, 1U);
    pair->low = 2;
    EXPECT_EQ(memory_.page.count, 1U);
    EXPECT_EQ(memory_.page.entries[0].offset, 64U);
    log.roll_back(0, sizeof memory_.data);
    EXPECT_EQ(pair->low, before.low);
    EXPECT_EQ(pair->high, before.high);
}

TEST_F(UndoLog, IgnoresWhatLiesOutside) {
    std::uint64_t outside = 5;
    undo_log log = memory_.log();
    log.set(outside, std::uint64_t{6});
    EXPECT_TRUE(log.is_empty());
    EXPECT_EQ(outside, 6U);
}

TEST_F(UndoLog, ADamagedLogIsPlayedBackWithinBounds) {
    const auto before = memory_.data;
    memory_.page.count = ~std::uint64_t{0};
    for (auto& entry : memory_.page.entries) {
        entry = {sizeof memory_.data + random_() % 100000 * 8, 7};
    }
    memory_.page.entries[5] = {3, 7};                        // not a word
    memory_.page.entries[6] = {~std::uint64_t{0} - 7, 7};    // wraps around
    memory_.page.entries[7] = {sizeof memory_.data - 4, 7};  // reaches out
    undo_log log = memory_.log();
    log.roll_back(0, sizeof memory_.data);
    EXPECT_EQ(memory_.data, before);
    EXPECT_TRUE(log.is_empty());
}

TEST_F(UndoLog, PassesOverWhatIsNotVolatileMetadata) {
    undo_log log = memory_.log();
    for (std::size_t i = 0; i < 10; ++i) {
        log.set(memory_.data[i], std::uint64_t{i});
    }
    const auto before = memory_.data;
    log.roll_back(4 * 8, 6 * 8);
    for (std::size_t i = 0; i < 10; ++i) {
        EXPECT_EQ(memory_.data[i] == before[i], i < 4 || i >= 6);
    }
    EXPECT_TRUE(log.is_empty());
}

TEST_F(UndoLog, RemembersTheDeepest) {
    undo_log log = memory_.log();
    for (const std::uint64_t depth : {3U, 9U, 5U}) {
        for (std::uint64_t i = 0; i < depth; ++i) {
            log.note(&memory_.data[i]);
        }
        log.commit();
    }
    EXPECT_EQ(log.deepest(), 9U);
}

using UndoLogDeathTest = UndoLog;

TEST_F(UndoLogDeathTest, OverflowEndsTheProcess) {
    undo_log log = memory_.log();
    for (std::size_t i = 0; i < undo_entry_count; ++i) {
        log.note(&memory_.data[i]);
    }
    EXPECT_DEATH(log.note(&memory_.data[0]), "");
}

}  // namespace
}  // namespace ndarena::journal
