/// \file
/// An arena as a std::pmr::memory_resource.
///
/// \code
/// ndarena::memory_resource resource(arena);
/// std::pmr::vector<double> v(1'000'000, &resource);   // out of core
/// \endcode
#pragma once

#include <ndarena/arena.hpp>

#include <memory_resource>
#include <new>

namespace ndarena {

/// Allocates from an arena; throws std::bad_alloc when refused. Holds a copy
/// of the arena, so the mapping outlives the resource's users as long as the
/// resource does. Two resources are equal if they are over the same arena.
class memory_resource final : public std::pmr::memory_resource {
public:
    explicit memory_resource(arena over) noexcept : arena_(std::move(over)) {}

    /// The arena it allocates from.
    arena& upstream() noexcept { return arena_; }

private:
    void* do_allocate(std::size_t nbytes, std::size_t alignment) override {
        if (void* p = arena_.allocate(nbytes, alignment)) {
            return p;
        }
        throw std::bad_alloc();
    }
    void do_deallocate(void* p, std::size_t, std::size_t) override { arena_.deallocate(p); }
    bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
        const auto* o = dynamic_cast<const memory_resource*>(&other);
        return o != nullptr && o->arena_.implementation() == arena_.implementation();
    }

    arena arena_;
};

}  // namespace ndarena
