// Base of those who know nothing of alignment beyond malloc's. For more they are
// asked for more, and the address that they gave is kept in the word before the
// one that is passed on.
#pragma once

#include "resources/resource.hpp"

namespace ndarena::resources {

class unaligned_resource : public resource {
public:
    using resource::resource;

protected:
    virtual void* plain_allocate(std::size_t nbytes, bool zero) noexcept = 0;
    virtual void plain_deallocate(void* p, std::size_t nbytes) noexcept = 0;
    virtual void* plain_reallocate(void* p, std::size_t old_bytes, std::size_t nbytes) noexcept {
        return resource::do_reallocate(p, old_bytes, nbytes, least_alignment);
    }

    void* do_allocate(std::size_t nbytes, std::size_t alignment, bool zero) noexcept override {
        if (alignment <= least_alignment) {
            return plain_allocate(nbytes, zero);
        }
        if (nbytes > SIZE_MAX - alignment) {
            return nullptr;
        }
        void* got = plain_allocate(nbytes + alignment, zero);
        if (got == nullptr) {
            return nullptr;
        }
        // At least a word after what was given, which is aligned to 16.
        const auto past = reinterpret_cast<std::uintptr_t>(got) & (alignment - 1);
        void* p = static_cast<std::byte*>(got) + (alignment - past);
        given(p) = got;
        return p;
    }
    void do_deallocate(void* p, std::size_t nbytes, std::size_t alignment) noexcept override {
        if (alignment <= least_alignment) {
            plain_deallocate(p, nbytes);
        } else {
            plain_deallocate(given(p), nbytes + alignment);
        }
    }
    void* do_reallocate(void* p, std::size_t old_bytes, std::size_t nbytes,
                        std::size_t alignment) noexcept override {
        return alignment <= least_alignment
                   ? plain_reallocate(p, old_bytes, nbytes)
                   : resource::do_reallocate(p, old_bytes, nbytes, alignment);
    }

private:
    static void*& given(void* p) noexcept { return static_cast<void**>(p)[-1]; }
};

}  // namespace ndarena::resources
