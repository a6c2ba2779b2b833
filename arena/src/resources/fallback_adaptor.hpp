// What the first refuses is asked of the second. Which of the two gave a piece of
// memory is remembered for the second's: they are the exception.
#pragma once

#include "resources/fork_mutex.hpp"
#include "resources/resource.hpp"

#include <unordered_set>

namespace ndarena::resources {

class fallback_adaptor final : public resource {
public:
    fallback_adaptor(resource_ptr first, resource_ptr then,
                     std::shared_ptr<counters> counts) noexcept
        : resource(std::move(counts)), first_(std::move(first)), then_(std::move(then)) {}

private:
    void* do_allocate(std::size_t nbytes, std::size_t alignment, bool zero) noexcept override {
        void* p = first_->allocate(nbytes, alignment, zero);
        return p == nullptr ? take(then_->allocate(nbytes, alignment, zero), nbytes, alignment) : p;
    }
    void do_deallocate(void* p, std::size_t nbytes, std::size_t alignment) noexcept override {
        if (auto node = forget(p)) {
            then_->deallocate(p, nbytes, alignment);
            n_seconds_.fetch_sub(1, std::memory_order_release);
        } else {
            first_->deallocate(p, nbytes, alignment);
        }
    }
    void* do_reallocate(void* p, std::size_t old_bytes, std::size_t nbytes,
                        std::size_t alignment) noexcept override {
        if (auto node = forget(p)) {
            // Meanwhile it is in no list: another thread may be given its old address.
            void* q = then_->reallocate(p, old_bytes, nbytes, alignment);
            node.value() = q == nullptr ? p : q;
            fork_guard guard(mutex_);
            seconds_.insert(std::move(node));  // there is room for it
            return q;
        }
        void* q = first_->reallocate(p, old_bytes, nbytes, alignment);
        if (q != nullptr) {
            return q;
        }
        q = take(then_->allocate(nbytes, alignment, false), nbytes, alignment);
        if (q != nullptr) {
            std::memcpy(q, p, std::min(old_bytes, nbytes));
            first_->deallocate(p, old_bytes, alignment);
        }
        return q;
    }

    void* take(void* p, std::size_t nbytes, std::size_t alignment) noexcept {
        if (p != nullptr && !remember(p)) {
            then_->deallocate(p, nbytes, alignment);
            return nullptr;
        }
        return p;
    }
    bool remember(void* p) noexcept {
        fork_guard guard(mutex_);
        try {
            seconds_.reserve(n_seconds_.load(std::memory_order_relaxed) + 1);
            seconds_.insert(p);
        } catch (const std::bad_alloc&) {
            return false;
        }
        n_seconds_.fetch_add(1, std::memory_order_release);
        return true;
    }
    // Takes it out of the list; empty if it is the first's.
    std::unordered_set<void*>::node_type forget(void* p) noexcept {
        if (n_seconds_.load(std::memory_order_acquire) == 0) {
            return {};
        }
        fork_guard guard(mutex_);
        return seconds_.extract(p);
    }

    resource_ptr first_;
    resource_ptr then_;
    fork_mutex mutex_;
    std::unordered_set<void*> seconds_;
    std::atomic<std::size_t> n_seconds_{0};  // with those that are being moved
};

}  // namespace ndarena::resources
