#include "journal/journal.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace ndarena::journal {

void undo_log::next_operation() noexcept {
    operation_ += operation_step;
    if (operation_ == 0) {  // the numbers begin again: nothing may look noted
        forget_noted();
    }
}

// Not inline: a dozen copies of it in every operation would not fit the
// instruction cache.
[[gnu::noinline]] void undo_log::append(std::uint64_t line) noexcept {
    const std::uint64_t n = page_->count.load(std::memory_order_relaxed);
    if (n >= segment::undo_entry_count) {
        overflow();
    }
    const std::uint64_t offset = line * segment::cache_line;
    if constexpr (base::planted(base::bug::count_before_entry)) {
        page_->count.store(n + 1, std::memory_order_release);
        base::order_stores();
    }
    page_->offsets[n] = offset;
    std::memcpy(page_->lines[n].data(), base_ + offset, segment::cache_line);
    page_->count.store(n + 1, std::memory_order_release);
    base::order_stores();
    if constexpr (base::planted(base::bug::commit_first)) {
        page_->count.store(0, std::memory_order_release);
    }
    noted_[line % noted_.size()] = operation_ + line;
}

void undo_log::commit() noexcept {
    base::order_stores();
    const std::uint64_t n = page_->count.load(std::memory_order_relaxed);
    if (n == 0) {
        return;
    }
    deepest_ = std::max(deepest_, n);
    page_->count.store(0, std::memory_order_release);
    base::order_stores();
    next_operation();
}

const std::uint64_t* undo_log::saved_line(const void* field) const noexcept {
    const auto offset =
        base::align_down(static_cast<std::uint64_t>(static_cast<const std::byte*>(field) - base_),
                         segment::cache_line);
    const std::uint64_t n = std::min<std::uint64_t>(page_->count.load(std::memory_order_acquire),
                                                    segment::undo_entry_count);
    for (std::uint64_t i = 0; i < n; ++i) {
        if (page_->offsets[i] == offset) {
            return page_->lines[i].data();
        }
    }
    return nullptr;
}

void undo_log::roll_back(std::uint64_t first, std::uint64_t last) noexcept {
    last = std::min(last, lines_ * segment::cache_line);
    // Idempotent up to the last store: a process that dies in here leaves the
    // whole log, and the next one plays it back again from the end.
    std::uint64_t n = std::min<std::uint64_t>(page_->count.load(std::memory_order_acquire),
                                              segment::undo_entry_count);
    if constexpr (base::planted(base::bug::log_cleared_first)) {
        page_->count.store(0, std::memory_order_release);
        base::order_stores();
    }
    while (n > 0) {
        --n;
        const std::uint64_t offset = page_->offsets[n];
        if (base::range_within(offset, segment::cache_line, first, last) &&
            offset % segment::cache_line == 0) {
            std::memcpy(base_ + offset, page_->lines[n].data(), segment::cache_line);
        }
    }
    base::order_stores();
    page_->count.store(0, std::memory_order_release);
    base::order_stores();
    next_operation();
}

// More notes than the log has room for: the operation could not be undone, so
// the process must not go on. Tests hold every operation to 32 entries.
void undo_log::overflow() noexcept { std::abort(); }

}  // namespace ndarena::journal
