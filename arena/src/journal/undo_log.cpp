#include "journal/journal.hpp"

#include <algorithm>
#include <cstdlib>

namespace ndarena::journal {

void undo_log::commit() noexcept {
    base::order_stores();
    deepest_ = std::max(deepest_, page_->count.load(std::memory_order_relaxed));
    page_->count.store(0, std::memory_order_release);
    base::order_stores();
}

void undo_log::roll_back(std::uint64_t first, std::uint64_t last) noexcept {
    last = std::min(last, size_);
    // Idempotent up to the last store: a process that dies in here leaves the
    // whole log, and the next one plays it back again from the end.
    std::uint64_t n = std::min<std::uint64_t>(page_->count.load(std::memory_order_acquire),
                                              segment::undo_entry_count);
    while (n > 0) {
        --n;
        const segment::undo_entry entry = page_->entries[n];
        if (base::range_within(entry.offset, sizeof(std::uint64_t), first, last) &&
            entry.offset % sizeof(std::uint64_t) == 0) {
            *word_at(entry.offset) = entry.value;
        }
    }
    base::order_stores();
    page_->count.store(0, std::memory_order_release);
    base::order_stores();
}

// More notes than the log has room for: the operation could not be undone, so
// the process must not go on. Tests hold every operation to 48 entries.
void undo_log::overflow() noexcept { std::abort(); }

}  // namespace ndarena::journal
