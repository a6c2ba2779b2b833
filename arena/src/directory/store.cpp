// Reading names, and the way in and out of transactions.
#include "directory/change.hpp"

#include <algorithm>

namespace ndarena::directory {
namespace {

// Gives the epoch's byte back when the last array that was read under it goes.
class epoch_pin {
public:
    epoch_pin(heap::heap& h, std::uint64_t epoch) noexcept : heap_(h), epoch_(epoch) {}
    ~epoch_pin() { heap_.unpin(epoch_); }
    epoch_pin(const epoch_pin&) = delete;
    epoch_pin& operator=(const epoch_pin&) = delete;

private:
    heap::heap& heap_;  // whoever keeps a pin keeps its heap
    std::uint64_t epoch_;
};

constexpr int patient_tries = 1000;

error changed_too_often(const std::string& path) {
    return {errc::lock_timeout, 0,
            "other processes change the names faster than they can be read; try again", path};
}

}  // namespace

store& store::of(heap::heap& h) {
    return *static_cast<store*>(
        h.companion([](heap::heap& owner) -> void* { return new store(owner); },
                    [](void* made) noexcept { delete static_cast<store*>(made); }));
}

store::store(heap::heap& h) noexcept : heap_(h) {}
store::~store() = default;

// Without a slot, what the file has at this moment.
std::uint64_t store::limit() const {
    const auto& seg = heap_.seg();
    if (seg.writable()) {
        return 0;
    }
    auto bytes = seg.file_bytes();
    return bytes ? std::min(seg.mapped_size(), *bytes) : segment::format_page;
}

// The root that this process's reads go by.
result<heap::names_root> store::root_to_read() {
    if (heap_.seg().writable()) {
        return heap_.names();
    }
    for (const bool looked : {false, true}) {
        {
            platform::lock_guard guard(reading_);
            if (seen_) {
                return *seen_;
            }
        }
        if (auto ok = looked ? result<void>{} : refresh(); !ok) {
            return ok.err();
        }
    }
    return changed_too_often(heap_.seg().path());
}

result<void> store::refresh() {
    if (heap_.seg().writable()) {
        return {};  // it always sees the newest
    }
    platform::lock_guard guard(reading_);
    for (int i = 0; i < patient_tries; ++i) {
        const heap::names_root root = heap_.names();
        if (pin_ && seen_ && seen_->epoch == root.epoch) {
            seen_ = root;
            return {};
        }
        if (auto pinned = heap_.pin(root.epoch); !pinned) {
            return pinned;
        }
        // Whoever changes the names after this finds the byte locked.
        const heap::names_root again = heap_.names();
        if (again.epoch == root.epoch && again.offset == root.offset) {
            pin_ = std::make_shared<epoch_pin>(heap_, root.epoch);
            seen_ = root;
            return {};
        }
        heap_.unpin(root.epoch);
    }
    return changed_too_often(heap_.seg().path());
}

// Runs `read` on a root until nobody has changed the names meanwhile.
template <class F>
auto store::steadily(F&& read)
    -> decltype(read(std::declval<const heap::names_root&>(), std::declval<segment_source&>())) {
    if (!heap_.seg().writable()) {
        auto root = root_to_read();
        if (!root) {
            return root.err();
        }
        segment_source from = source();
        return read(*root, from);
    }
    for (int i = 0; i < patient_tries; ++i) {
        const heap::names_root before = heap_.names();
        segment_source from = source();
        auto got = read(before, from);
        base::order_stores();  // and the loads: all that was read was read before this
        const heap::names_root after = heap_.names();
        const bool steady = after.epoch == before.epoch && after.offset == before.offset;
        if (steady && (got || got.err().code != errc::stale)) {
            return got;
        }
        if (i % 16 == 15) {
            (void)platform::sleep_milliseconds(1);
        }
    }
    return changed_too_often(heap_.seg().path());
}

result<bool> store::find(std::string_view name, entry& e) {
    if (in_transaction()) {
        std::string value;
        auto there = change_->tree.find(name, value);
        if (!there || !*there) {
            return there;
        }
        if (auto ok = change_->source.read_entry(value, e); !ok) {
            return ok.err();
        }
        return true;
    }
    return steadily([&](const heap::names_root& root, segment_source& from) -> result<bool> {
        std::string value;
        auto there = tree_view(from, id(), {root.offset, root.record}, &known_).find(name, value);
        if (!there || !*there) {
            return there;
        }
        if (auto ok = from.read_entry(value, e); !ok) {
            return ok.err();
        }
        return true;
    });
}

result<void*> store::hold(std::string_view name, entry& e, bool& found, reader_pin& pin) {
    found = false;
    void* address = nullptr;
    const auto take = [&](const heap::names_root& root, std::string_view value,
                          segment_source& from) -> result<void*> {
        if (auto ok = from.read_entry(value, e); !ok) {
            return ok.err();
        }
        found = true;
        if (e.offset == 0) {
            return address;
        }
        if (!heap_.seg().writable()) {
            platform::lock_guard guard(reading_);
            pin = pin_;
            return static_cast<void*>(heap_.base() + e.offset);
        }
        return heap_.hold_named(root, e.offset, e.record, e.nbytes);
    };
    if (in_transaction()) {
        std::string value;
        auto there = change_->tree.find(name, value);
        if (!there) {
            return there.err();
        }
        if (!*there) {
            return address;
        }
        if (auto ok = change_->source.read_entry(value, e); !ok) {
            return ok.err();
        }
        if (e.offset != 0 && heap_.retain(heap_.base() + e.offset)) {
            found = true;  // of this transaction, or of this process anyway
            return static_cast<void*>(heap_.base() + e.offset);
        }
        return take(heap_.names(), value, change_->source);
    }
    return steadily([&](const heap::names_root& root, segment_source& from) -> result<void*> {
        std::string value;
        auto there = tree_view(from, id(), {root.offset, root.record}, &known_).find(name, value);
        if (!there) {
            return there.err();
        }
        found = false;
        return *there ? take(root, value, from) : result<void*>(address);
    });
}

result<std::uint64_t> store::count() {
    if (in_transaction()) {
        return change_->tree.count();
    }
    return steadily(
        [&](const heap::names_root& root, segment_source& from) -> result<std::uint64_t> {
            return tree_view(from, id(), {root.offset, root.record}).count();
        });
}

result<std::vector<std::string>> store::list(std::string_view prefix,
                                             const std::optional<std::string>& after,
                                             std::size_t limit) {
    std::vector<std::string> names;
    const std::string_view from_key = after ? std::string_view(*after) : prefix;
    const auto collect = [&](std::string_view key, std::string_view) {
        if (key.substr(0, prefix.size()) != prefix || names.size() == limit) {
            return false;
        }
        if (!after || key != *after) {
            names.emplace_back(key);
        }
        return true;
    };
    result<void> scanned;
    if (in_transaction()) {
        scanned = change_->tree.scan(from_key, collect);
    } else {
        scanned = steadily([&](const heap::names_root& root, segment_source& from) -> result<void> {
            names.clear();
            return tree_view(from, id(), {root.offset, root.record}).scan(from_key, collect);
        });
    }
    if (!scanned) {
        return scanned.err();
    }
    return names;
}

std::uint64_t store::this_thread() noexcept {
    // A thread is named by its process too, so that a fork child finds the gate open.
    static thread_local char anchor;
    const auto thread = reinterpret_cast<std::uintptr_t>(&anchor) / alignof(std::max_align_t);
    return std::uint64_t{platform::process_id()} << 44 | (thread & ((std::uint64_t{1} << 44) - 1));
}

bool store::in_transaction() const noexcept {
    const std::uint64_t owner = gate_.load(std::memory_order_acquire);
    return owner != 0 && owner == this_thread() && change_ != nullptr;
}

// Past the gate and the lock; false when the deadline has passed, or a signal came.
bool store::enter(std::uint64_t deadline) noexcept {
    const std::uint64_t self = this_thread();
    std::uint64_t owner = 0;
    bool given_up = false;
    while (!gate_.compare_exchange_strong(owner, self, std::memory_order_acquire)) {
        if (owner >> 44 != self >> 44) {
            // A thread of the process that this one was forked from.
            if (gate_.compare_exchange_strong(owner, self, std::memory_order_acquire)) {
                (void)change_.release();  // its references are the parent's affair
                break;
            }
        }
        owner = 0;
        if (given_up || platform::monotonic_milliseconds() >= deadline) {
            return false;
        }
        given_up = platform::wait_is_given_up(platform::sleep_milliseconds(1));
    }
    const std::uint64_t now = platform::monotonic_milliseconds();
    const auto patience = static_cast<unsigned>(
        std::min<std::uint64_t>(deadline > now ? deadline - now : 0, 1U << 30));
    if (heap_.directory_lock().lock(heap_.owner_word(), patience) ==
        segment::lock_outcome::timed_out) {
        gate_.store(0, std::memory_order_release);
        return false;
    }
    heap_.finish_names();
    return true;
}

void store::leave() noexcept {
    heap_.directory_lock().unlock();
    gate_.store(0, std::memory_order_release);
}

}  // namespace ndarena::directory
