// Locks on single bytes of a file that die with the open file description
// (F_OFD_SETLK): the one way to learn, without a race, that a process is
// gone. A lock byte may lie far outside the file's data.
#pragma once

#include <cstdint>

namespace ndarena::platform {

enum class lock_answer : std::uint8_t { taken, busy, failed };

// Tries to take the byte for writing (exclusive). Never waits.
lock_answer try_lock_byte(int fd, std::uint64_t offset) noexcept;
// The same for reading: shared with other readers. Works on a descriptor that
// is open for reading only.
lock_answer try_share_byte(int fd, std::uint64_t offset) noexcept;
void unlock_byte(int fd, std::uint64_t offset) noexcept;

// True if another open file description holds any byte of the range.
// A failing call counts as held: what may be alive is never treated as dead.
bool is_locked_by_other(int fd, std::uint64_t offset, std::uint64_t size) noexcept;
// The same from the offset to the end of all offsets; `at` is where such a lock
// starts, or the offset if it starts before.
bool find_lock_of_other(int fd, std::uint64_t offset, std::uint64_t& at) noexcept;

}  // namespace ndarena::platform
