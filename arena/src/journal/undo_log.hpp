// The undo log of one segment.
//
// Contract: `note(&word)` before the first change of a metadata word; then
// change it; `commit()` when the operation is whole, or `roll_back()`. If the
// process dies in between, whoever takes the lock calls `roll_back()` and
// finds the state before the operation.
//
// Invariant: at every instruction, entries [0, count) hold the old values of
// all words changed so far. The count rises after its entry is written and
// before the word changes; a SIGKILL stops a process between two
// instructions, so keeping the compiler from reordering is enough on x86-64.
//
// Words in space that is dead in the old state (an unused record, a chunk not
// yet linked) need no note: undoing never looks at them.
#pragma once

#include "segment/segment.hpp"

#include <cstddef>
#include <cstdint>

namespace ndarena::journal {

class undo_log {
public:
    // `base` is the segment's first byte, `size` its extent; words outside are
    // not noted (the block table's trap record lies there).
    undo_log(std::byte* base, std::uint64_t size, segment::undo_page* page) noexcept
        : base_(base), size_(size), page_(page) {}

    // Notes the aligned 8-byte word that contains `field`.
    void note(const void* field) noexcept {
        const std::uint64_t offset =
            (static_cast<std::uint64_t>(static_cast<const std::byte*>(field) - base_)) &
            ~std::uint64_t{7};
        if (offset >= size_) {
            return;
        }
        const std::uint64_t n = page_->count.load(std::memory_order_relaxed);
        if (n >= segment::undo_entry_count) {
            overflow();
        }
        page_->entries[n] = {offset, *word_at(offset)};
        page_->count.store(n + 1, std::memory_order_release);
        base::order_stores();
    }

    // Notes and sets in one go.
    template <class T>
    void set(T& field, T value) noexcept {
        note(&field);
        field = value;
    }

    void commit() noexcept;
    // Plays back entries whose words lie in [first, last); others are damage
    // and are passed over.
    void roll_back(std::uint64_t first = 0, std::uint64_t last = ~std::uint64_t{0}) noexcept;
    bool is_empty() const noexcept { return page_->count.load(std::memory_order_relaxed) == 0; }

    // Most entries any operation of this process has used.
    std::uint64_t deepest() const noexcept { return deepest_; }

private:
    std::uint64_t* word_at(std::uint64_t offset) const noexcept {
        return reinterpret_cast<std::uint64_t*>(base_ + offset);
    }
    [[noreturn]] static void overflow() noexcept;

    std::byte* base_;
    std::uint64_t size_;
    segment::undo_page* page_;
    std::uint64_t deepest_ = 0;
};

}  // namespace ndarena::journal
