// The undo log of one segment.
//
// Contract: `note(&word)` before the first change of a metadata word; then
// change it; `commit()` when the operation is whole, or `roll_back()`. If the
// process dies in between, whoever takes the lock calls `roll_back()` and
// finds the state before the operation.
//
// What is noted is the whole cache line around the word, and each line only
// once in an operation: the words of a record, or the counters, change
// together, and one copy of 64 bytes costs less than noting three of them.
//
// Invariant: at every instruction, entries [0, count) hold the old contents of
// all lines changed so far. The count rises after its entry is written and
// before the line changes; a SIGKILL stops a process between two
// instructions, so keeping the compiler from reordering is enough on x86-64.
//
// Words in space that is dead in the old state (an unused record, a chunk not
// yet linked) need no note: undoing never looks at them. A word that is
// changed without a note must not share its line with one that is noted.
#pragma once

#include "segment/segment.hpp"

#include <array>
#include <cstddef>
#include <cstdint>

namespace ndarena::journal {

class undo_log {
public:
    // `base` is the segment's first byte, `size` its extent; words outside are
    // not noted (the block table's trap record lies there).
    undo_log(std::byte* base, std::uint64_t size, segment::undo_page* page) noexcept
        : base_(base), lines_(size / segment::cache_line), page_(page) {
        forget_noted();
    }

    // Notes the line that contains `field`, unless it has been noted since the
    // last commit.
    void note(const void* field) noexcept {
        const std::uint64_t line =
            static_cast<std::uint64_t>(static_cast<const std::byte*>(field) - base_) /
            segment::cache_line;
        if (line >= lines_) {
            return;
        }
        if (noted_[line % noted_.size()] != operation_ + line) {
            append(line);
        }
    }

    // Notes and sets in one go, the store in one piece: some counters are read
    // without the lock.
    template <class T>
    void set(T& field, T value) noexcept {
        note(&field);
        __atomic_store(&field, &value, __ATOMIC_RELAXED);
    }

    void commit() noexcept;
    // Plays back entries whose lines lie in [first, last); others are damage
    // and are passed over.
    void roll_back(std::uint64_t first = 0, std::uint64_t last = ~std::uint64_t{0}) noexcept;
    // What the line of the field was before the operation that someone died in,
    // null if that had not changed it. For readers, who cannot play it back.
    const std::uint64_t* saved_line(const void* field) const noexcept;
    // False: more entries than there is room for, which no process has written.
    bool is_possible() const noexcept {
        return page_->count.load(std::memory_order_relaxed) <= segment::undo_entry_count;
    }
    bool is_empty() const noexcept { return page_->count.load(std::memory_order_relaxed) == 0; }

    // Most entries any operation of this process has used.
    std::uint64_t deepest() const noexcept { return deepest_; }

private:
    void append(std::uint64_t line) noexcept;
    [[noreturn]] static void overflow() noexcept;
    void next_operation() noexcept;
    void forget_noted() noexcept { noted_.fill(~std::uint64_t{0}); }

    // Operations are numbered in the bits above any line's number.
    static constexpr std::uint64_t operation_step = segment::max_capacity;

    std::byte* base_;
    std::uint64_t lines_;
    segment::undo_page* page_;
    std::uint64_t deepest_ = 0;
    std::uint64_t operation_ = 0;
    // The last line noted among those that share a place, with its operation.
    // One that was pushed out is noted twice, which only costs an entry:
    // playback runs backwards, so the oldest content prevails.
    std::array<std::uint64_t, 64> noted_{};
};

}  // namespace ndarena::journal
