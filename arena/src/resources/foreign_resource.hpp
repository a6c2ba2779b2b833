// An allocator of somebody else's, as a table of C functions with a context.
#pragma once

#include "resources/resource.hpp"

namespace ndarena::resources {

// `reallocate` and `destroy` may be null. Aligned and zeroed by themselves; sizes and
// alignments are given back.
struct foreign_functions {
    void* context = nullptr;
    void* (*allocate)(void*, std::size_t nbytes, std::size_t alignment, int zero) = nullptr;
    void (*deallocate)(void*, void* p, std::size_t nbytes, std::size_t alignment) = nullptr;
    void* (*reallocate)(void*, void* p, std::size_t old_bytes, std::size_t nbytes,
                        std::size_t alignment) = nullptr;
    void (*destroy)(void*) = nullptr;
};

// Destroys the context, once it has been taken over, with the last resource over it.
class foreign_allocator {
public:
    explicit foreign_allocator(const foreign_functions& to) noexcept : to_(to) {}
    ~foreign_allocator() {
        if (taken_over_ && to_.destroy != nullptr) {
            to_.destroy(to_.context);
        }
    }
    foreign_allocator(const foreign_allocator&) = delete;
    foreign_allocator& operator=(const foreign_allocator&) = delete;

    void take_over() noexcept { taken_over_ = true; }
    const foreign_functions& functions() const noexcept { return to_; }

private:
    foreign_functions to_;
    bool taken_over_ = false;
};

class foreign_resource final : public resource {
public:
    foreign_resource(std::shared_ptr<const foreign_allocator> from,
                     std::shared_ptr<counters> counts) noexcept
        : resource(std::move(counts)), from_(std::move(from)), to_(from_->functions()) {}

private:
    static bool is_aligned(const void* p, std::size_t alignment) noexcept {
        return (reinterpret_cast<std::uintptr_t>(p) & (alignment - 1)) == 0;
    }
    void* do_allocate(std::size_t nbytes, std::size_t alignment, bool zero) noexcept override {
        void* p = to_.allocate(to_.context, nbytes, alignment, zero ? 1 : 0);
        if (!is_aligned(p, alignment)) {
            to_.deallocate(to_.context, p, nbytes, alignment);
            return nullptr;
        }
        return p;
    }
    void do_deallocate(void* p, std::size_t nbytes, std::size_t alignment) noexcept override {
        to_.deallocate(to_.context, p, nbytes, alignment);
    }
    void* do_reallocate(void* p, std::size_t old_bytes, std::size_t nbytes,
                        std::size_t alignment) noexcept override {
        return to_.reallocate == nullptr
                   ? resource::do_reallocate(p, old_bytes, nbytes, alignment)
                   : to_.reallocate(to_.context, p, old_bytes, nbytes, alignment);
    }

    std::shared_ptr<const foreign_allocator> from_;
    foreign_functions to_;
};

}  // namespace ndarena::resources
