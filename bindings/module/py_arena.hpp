// `_core.Arena`: one opening of an arena, as Python holds it.
#pragma once

#include "numpy/numpy.hpp"

#include <memory>
#include <string>
#include <vector>

namespace ndarena::module {

class py_arena : public std::enable_shared_from_this<py_arena> {
public:
    explicit py_arena(std::shared_ptr<numpy::lease> held);
    ~py_arena() { close(); }
    py_arena(const py_arena&) = delete;
    py_arena& operator=(const py_arena&) = delete;

    // Ends allocation through this opening and lets go of the lease; arrays
    // keep it through their handlers. Needs the GIL.
    void close();
    bool is_closed() const noexcept { return closed_->load(std::memory_order_relaxed); }

    // ClosedError after close().
    std::shared_ptr<numpy::lease> lease() const;
    // After close(): still there while arrays keep it, else null.
    std::shared_ptr<numpy::lease> lease_if_alive() const noexcept { return remembered_.lock(); }
    const numpy::closed_flag& closed_flag() const noexcept { return closed_; }

    // No other opening of the same arena in this process is open.
    bool is_last_opening() const;

    // Facts that stay known after close().
    const char* kind() const noexcept { return kind_; }
    const std::string& filename() const noexcept { return filename_; }
    const std::string& name() const noexcept { return name_; }
    const char* mode() const noexcept { return mode_; }
    const std::string& uuid() const noexcept { return uuid_; }
    std::uint64_t alignment() const noexcept { return alignment_; }
    std::uint64_t capacity() const;

    // The newest open one whose arena holds the address; made anew if arrays
    // outlived every opening that was forgotten, null if all were closed.
    static std::shared_ptr<py_arena> find(const void* address);
    void enroll();

private:
    mutable platform::mutex mutex_;  // guards held_ and last_capacity_
    std::shared_ptr<numpy::lease> held_;
    std::weak_ptr<numpy::lease> remembered_;
    numpy::closed_flag closed_ = std::make_shared<std::atomic<bool>>(false);
    const char* kind_;
    std::string filename_;
    std::string name_;
    const char* mode_;
    std::string uuid_;
    std::uint64_t alignment_;
    mutable std::uint64_t last_capacity_ = 0;
};

}  // namespace ndarena::module
