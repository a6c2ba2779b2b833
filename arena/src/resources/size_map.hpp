// How many bytes an address was given out with. Users of malloc's interface do
// not say, or not reliably.
#pragma once

#include "resources/fork_mutex.hpp"

#include <cstddef>
#include <new>
#include <unordered_map>

namespace ndarena::resources {

class size_map {
public:
    using node = std::unordered_map<const void*, std::size_t>::node_type;

    bool insert(const void* p, std::size_t nbytes) noexcept {
        fork_guard guard(mutex_);
        try {
            sizes_.reserve(sizes_.size() + n_out_ + 1);
            sizes_.insert({p, nbytes});
        } catch (const std::bad_alloc&) {
            return false;
        }
        return true;
    }
    // Takes it out; empty if it is unknown.
    node take(const void* p) noexcept {
        fork_guard guard(mutex_);
        return sizes_.extract(p);
    }
    // The same for memory that is about to move: `put` has room for it.
    node take_out(const void* p) noexcept {
        fork_guard guard(mutex_);
        node taken = sizes_.extract(p);
        n_out_ += taken ? 1U : 0U;
        return taken;
    }
    void put(node taken, const void* p, std::size_t nbytes) noexcept {
        taken.key() = p;
        taken.mapped() = nbytes;
        fork_guard guard(mutex_);
        --n_out_;
        sizes_.insert(std::move(taken));
    }

    bool contains(const void* p) noexcept {
        fork_guard guard(mutex_);
        return sizes_.count(p) != 0;
    }
    bool is_empty() noexcept {
        fork_guard guard(mutex_);
        return sizes_.empty() && n_out_ == 0;
    }

private:
    fork_mutex mutex_;
    std::unordered_map<const void*, std::size_t> sizes_;
    std::size_t n_out_ = 0;
};

}  // namespace ndarena::resources
