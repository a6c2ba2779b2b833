#include "py_arena.hpp"

#include "errors.hpp"

#include <algorithm>
#include <array>
#include <cstdio>

namespace ndarena::module {
namespace {

struct roll {
    platform::mutex mutex;
    std::vector<std::weak_ptr<py_arena>> arenas;
};

roll& all_arenas() {
    static auto* the_roll = new roll;
    return *the_roll;
}

const char* kind_name(heap::segment_kind kind) noexcept {
    switch (kind) {
        case heap::segment_kind::file:
            return "file";
        case heap::segment_kind::shared:
            return "shared";
        case heap::segment_kind::scratch:
            return "scratch";
        case heap::segment_kind::buffer:
            break;
    }
    return "buffer";
}

std::string hexadecimal(const std::array<std::uint8_t, 16>& uuid) {
    std::string text;
    for (const std::uint8_t byte : uuid) {
        std::array<char, 3> digits{};
        std::snprintf(digits.data(), digits.size(), "%02x", byte);
        text += digits.data();
    }
    return text;
}

}  // namespace

py_arena::py_arena(std::shared_ptr<numpy::lease> held)
    : held_(std::move(held)), remembered_(held_) {
    const auto& seg = held_->heap().seg();
    kind_ = kind_name(seg.kind());
    if (seg.kind() == heap::segment_kind::file) {
        filename_ = seg.path();
    }
    name_ = seg.name();
    mode_ = seg.writable() ? "r+" : "r";
    uuid_ = hexadecimal(seg.header().uuid);
    alignment_ = held_->heap().alignment();
    last_capacity_ = held_->heap().capacity();
}

void py_arena::close() {
    std::shared_ptr<numpy::lease> held;  // let go of outside the lock
    {
        platform::lock_guard guard(mutex_);
        closed_->store(true, std::memory_order_release);
        held.swap(held_);
        if (held) {
            last_capacity_ = held->heap().capacity();
        }
    }
    if (held) {
        held.reset();
        numpy::forget_retired();
        numpy::release_waiting_buffers();
    }
}

std::shared_ptr<numpy::lease> py_arena::lease() const {
    {
        platform::lock_guard guard(mutex_);
        if (held_) {
            return held_;
        }
    }
    raise({errc::closed, 0, "the arena is closed; open it again to use it", {}});
}

std::uint64_t py_arena::capacity() const {
    platform::lock_guard guard(mutex_);
    if (held_) {
        last_capacity_ = held_->heap().capacity();
    }
    return last_capacity_;
}

void py_arena::enroll() {
    roll& all = all_arenas();
    platform::lock_guard guard(all.mutex);
    all.arenas.erase(std::remove_if(all.arenas.begin(), all.arenas.end(),
                                    [](const auto& weak) { return weak.expired(); }),
                     all.arenas.end());
    all.arenas.push_back(shared_from_this());
}

bool py_arena::is_last_opening() const {
    const auto held = lease_if_alive();
    roll& all = all_arenas();
    platform::lock_guard guard(all.mutex);
    for (const auto& weak : all.arenas) {
        const auto other = weak.lock();
        if (other && other.get() != this && !other->is_closed()) {
            const auto theirs = other->lease_if_alive();
            if (theirs && held && &theirs->heap() == &held->heap()) {
                return false;
            }
        }
    }
    return true;
}

std::shared_ptr<py_arena> py_arena::find(const void* address) {
    std::vector<std::shared_ptr<py_arena>> known;
    roll& all = all_arenas();
    {
        platform::lock_guard guard(all.mutex);
        for (const auto& weak : all.arenas) {
            if (auto a = weak.lock()) {
                known.push_back(std::move(a));
            }
        }
    }
    bool was_closed = false;
    const auto held = numpy::lease::find(address);
    for (auto it = known.rbegin(); held && it != known.rend(); ++it) {
        if ((*it)->is_closed()) {
            was_closed =
                was_closed || (*it)->uuid_ == hexadecimal(held->heap().seg().header().uuid);
        } else if (const auto other = (*it)->lease_if_alive();
                   other && &other->heap() == &held->heap()) {
            return *it;
        }
    }
    if (!held || was_closed) {
        return nullptr;
    }
    auto made = std::make_shared<py_arena>(held);
    made->enroll();
    return made;
}

}  // namespace ndarena::module
