#include "journal/journal.hpp"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <vector>

namespace ndarena::journal {
namespace {

using segment::cache_line;
using segment::undo_entry_count;
using segment::undo_page;

constexpr std::size_t words = 512;
constexpr std::size_t line_words = cache_line / sizeof(std::uint64_t);
static_assert(words / line_words > undo_entry_count);

// The memory that outlives a process: the log and some words it protects.
struct memory {
    alignas(64) std::array<std::uint64_t, words> data{};
    undo_page page{};

    std::byte* base() { return reinterpret_cast<std::byte*>(data.data()); }
    undo_log log() { return {base(), sizeof data, &page}; }
};

struct image {
    explicit image(const memory& m)
        : data(m.data), offsets(m.page.offsets), old(m.page.lines), count(m.page.count) {}
    void restore(memory& m) const {
        m.data = data;
        m.page.offsets = offsets;
        m.page.lines = old;
        m.page.count = count;
    }
    std::array<std::uint64_t, words> data;
    decltype(undo_page::offsets) offsets;
    decltype(undo_page::lines) old;
    std::uint64_t count;
};

// An operation in small steps; after each the memory is kept, as a process
// that dies there would leave it.
class dying_writer {
public:
    explicit dying_writer(memory& m) : memory_(m), log_(m.log()) { keep(); }

    void write(std::size_t word, std::uint64_t value) {
        // Inside note: the entry is there in part or whole, the count has not risen.
        const image before(memory_);
        const std::uint64_t n = memory_.page.count;
        if (n < undo_entry_count) {
            memory_.page.offsets[n] = word / line_words * cache_line;
            keep();
            for (std::size_t i = 0; i < line_words; ++i) {
                memory_.page.lines[n][i] = memory_.data[word / line_words * line_words + i];
                keep();
            }
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
    for (int round = 0; round < 60; ++round) {
        const auto before = memory_.data;
        dying_writer writer(memory_);
        const auto writes = 1 + random_() % undo_entry_count;
        for (std::uint64_t i = 0; i < writes; ++i) {
            // A few words often, so that one is written several times.
            writer.write(random_() % (round % 2 == 0 ? 20 : words), random_());
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
    writer.write_wrongly(2 * line_words, 20);
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
        writer.write(random_() % words, random_());
    }
    const image dead = writer.images().back();
    ASSERT_GT(dead.count, 10U);
    for (std::uint64_t done = 0; done <= dead.count * line_words; ++done) {
        // The first heir has restored `done` words, newest lines first, and died.
        dead.restore(memory_);
        for (std::uint64_t i = 0; i < done; ++i) {
            const std::uint64_t n = dead.count - 1 - i / line_words;
            memory_.data[dead.offsets[n] / 8 + i % line_words] = dead.old[n][i % line_words];
        }
        ASSERT_TRUE(rolls_back_to(image(memory_), before));
    }
}

TEST_F(UndoLog, NotesALineOnceInAnOperation) {
    undo_log log = memory_.log();
    for (int operation = 0; operation < 3; ++operation) {
        const auto before = memory_.data;
        for (std::size_t word = 0; word < 2 * line_words; ++word) {
            log.set(memory_.data[8 + word], random_());
        }
        EXPECT_EQ(memory_.page.count, 2U);
        EXPECT_EQ(memory_.page.offsets[0], cache_line);
        EXPECT_EQ(memory_.page.offsets[1], 2 * cache_line);
        if (operation == 1) {
            log.roll_back();
            EXPECT_EQ(memory_.data, before);
        } else {
            log.commit();
        }
    }
}

// Lines that share a place in the log's memory of what it has noted.
TEST_F(UndoLog, ALineMayBeNotedTwice) {
    std::vector<std::uint64_t> many(512 * line_words, 7);
    undo_page page{};
    undo_log log(reinterpret_cast<std::byte*>(many.data()), many.size() * 8, &page);
    for (std::uint64_t round = 0; round < 3; ++round) {
        for (std::size_t line = 0; line < 512; line += 64) {
            log.set(many[line * line_words], round);
        }
    }
    EXPECT_EQ(page.count, 3U * 8U);
    log.roll_back();
    EXPECT_EQ(many, std::vector<std::uint64_t>(512 * line_words, 7));
}

TEST_F(UndoLog, NotesTheLineAroundAField) {
    const auto before = memory_.data;
    undo_log log = memory_.log();
    auto* field = reinterpret_cast<std::uint32_t*>(memory_.base() + 2 * cache_line - 4);
    log.set(*field, 1U);
    memory_.data[8] = 2;  // the first word of the same line
    EXPECT_EQ(memory_.page.count, 1U);
    EXPECT_EQ(memory_.page.offsets[0], cache_line);
    log.roll_back(0, sizeof memory_.data);
    EXPECT_EQ(memory_.data, before);
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
    for (auto& offset : memory_.page.offsets) {
        offset = sizeof memory_.data + random_() % 100000 * cache_line;
    }
    for (auto& line : memory_.page.lines) {
        line.fill(7);
    }
    memory_.page.offsets[5] = 8;                        // not a line
    memory_.page.offsets[6] = ~std::uint64_t{0} - 63;   // wraps around
    memory_.page.offsets[7] = sizeof memory_.data - 8;  // reaches out
    memory_.page.offsets[8] = std::uint64_t{1} << 63;   // far outside
    undo_log log = memory_.log();
    log.roll_back(0, sizeof memory_.data);
    EXPECT_EQ(memory_.data, before);
    EXPECT_TRUE(log.is_empty());
}

TEST_F(UndoLog, PassesOverWhatIsNotVolatileMetadata) {
    undo_log log = memory_.log();
    for (std::size_t line = 0; line < 10; ++line) {
        log.set(memory_.data[line * line_words], std::uint64_t{line});
    }
    const auto before = memory_.data;
    log.roll_back(4 * cache_line, 6 * cache_line);
    for (std::size_t line = 0; line < 10; ++line) {
        const std::size_t word = line * line_words;
        EXPECT_EQ(memory_.data[word] == before[word], line < 4 || line >= 6);
    }
    EXPECT_TRUE(log.is_empty());
}

TEST_F(UndoLog, RemembersTheDeepest) {
    undo_log log = memory_.log();
    for (const std::uint64_t depth : {3U, 9U, 5U}) {
        for (std::uint64_t i = 0; i < depth; ++i) {
            log.note(&memory_.data[i * line_words]);
        }
        log.commit();
    }
    EXPECT_EQ(log.deepest(), 9U);
}

using UndoLogDeathTest = UndoLog;

TEST_F(UndoLogDeathTest, OverflowEndsTheProcess) {
    undo_log log = memory_.log();
    for (std::size_t i = 0; i < undo_entry_count; ++i) {
        log.note(&memory_.data[i * line_words]);
    }
    log.note(&memory_.data[0]);  // noted already
    EXPECT_DEATH(log.note(&memory_.data[undo_entry_count * line_words]), "");
}

}  // namespace
}  // namespace ndarena::journal
