#include "heap/heap.hpp"

#include <algorithm>
#include <new>

namespace ndarena::heap {

bool pointer_map::reserve() noexcept {
    if ((size_ + 1) * 2 <= capacity_) {
        return true;
    }
    const std::uint64_t bigger = capacity_ == 0 ? 64 : capacity_ * 2;
    std::unique_ptr<map_entry[]> old(new (std::nothrow) map_entry[bigger]);
    if (!old) {
        return false;
    }
    old.swap(places_);
    const std::uint64_t old_capacity = capacity_;
    capacity_ = bigger;
    shift_ = 64 - base::floor_log2(bigger);
    size_ = 0;
    bytes_ = 0;
    for (std::uint64_t i = 0; i < old_capacity; ++i) {
        if (old[i].key != 0) {
            insert(old[i]);
        }
    }
    return true;
}

void pointer_map::insert(const map_entry& entry) noexcept {
    std::uint64_t i = home(entry.key);
    while (places_[i].key != 0) {
        i = (i + 1) & (capacity_ - 1);
    }
    places_[i] = entry;
    ++size_;
    ++n_inserted_;
    bytes_ += entry.nbytes;
    peak_bytes_ = std::max(peak_bytes_, bytes_);
}

map_entry* pointer_map::find(std::uint64_t key) noexcept {
    if (size_ == 0) {
        return nullptr;
    }
    for (std::uint64_t i = home(key); places_[i].key != 0; i = (i + 1) & (capacity_ - 1)) {
        if (places_[i].key == key) {
            return &places_[i];
        }
    }
    return nullptr;
}

void pointer_map::erase(map_entry* entry) noexcept {
    --size_;
    bytes_ -= entry->nbytes;
    // Linear probing without tombstones: close the gap with whatever may move.
    auto gap = static_cast<std::uint64_t>(entry - places_.get());
    std::uint64_t i = gap;
    for (;;) {
        i = (i + 1) & (capacity_ - 1);
        if (places_[i].key == 0) {
            break;
        }
        const std::uint64_t wanted = home(places_[i].key);
        if (((i - wanted) & (capacity_ - 1)) >= ((i - gap) & (capacity_ - 1))) {
            places_[gap] = places_[i];
            gap = i;
        }
    }
    places_[gap] = map_entry{};
}

void pointer_map::clear() noexcept {
    places_.reset();
    capacity_ = size_ = bytes_ = 0;
    shift_ = 64;
}

void pointer_map::resized(map_entry* entry, std::uint64_t nbytes) noexcept {
    bytes_ += nbytes - entry->nbytes;
    peak_bytes_ = std::max(peak_bytes_, bytes_);
    entry->nbytes = nbytes;
}

}  // namespace ndarena::heap
