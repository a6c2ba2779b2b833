/// \file
/// Any C++ allocator as NumPy's: a "mem_handler" capsule (NEP 49) over a standard
/// allocator or a std::pmr::memory_resource.
///
/// \code
/// #include <ndarena/numpy.hpp>
///
/// PyObject* make_handler(PyObject*, PyObject*) {     // a method of an extension module
///     return ndarena::numpy_handler_from_cpp_allocator("mine", my_allocator<char>(my_pool));
/// }
/// \endcode
///
/// What to do with the capsule: `PyDataMem_SetHandler(capsule)` makes it current in C,
/// and in Python it can stand wherever ndarena takes an upstream, as in
/// `with ndarena.Aligned(64, module.make_handler()): ...`.
///
/// Needs the headers of Python and of NumPy 1.22 or later, and nothing at run time, not
/// even ndarena. No `import_array()`.
///
/// Lifetime: the capsule owns the allocator. NumPy keeps the capsule with every array
/// made with it, so the allocator is destroyed when the last array, the last context
/// and the last variable have let go, in whichever thread, with the GIL, possibly while
/// a Python exception is pending (which it does not see, and which stays). Whatever
/// an allocator only refers to (a pool, say) must live as long: let it hold a
/// std::shared_ptr.
///
/// Threads: NumPy may call from any thread, and in a few places without the GIL. Calls of
/// the allocator are therefore made one at a time, and it needs no lock of its own unless
/// somebody else uses the same pool. It must neither call Python nor wait for the GIL,
/// nor use the handler that it serves.
///
/// Fork: the child can use and free everything. What the allocator keeps by itself is
/// its own business: if another thread was inside it when the process forked, the child sees
/// it as it was at that moment.
///
/// Refusals: null and any exception are one, and NumPy raises MemoryError. So is an
/// address that is not a multiple of 16, which would crash NumPy; it is given back. A request
/// that cannot be met leaves the old memory as it was.
#pragma once

#include <ndarena/numpy_handler.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <memory_resource>
#include <utility>

#pragma GCC visibility push(hidden)
namespace ndarena::numpy_detail {

/// What allocators are rebound to.
struct alignas(least_alignment) unit {
    unsigned char bytes[least_alignment];
};

/// The address of any pointer type, without touching what may not be there.
template <class T>
T* raw_address(T* p) noexcept {
    return p;
}
template <class Fancy>
auto raw_address(const Fancy& p) {
    return raw_address(p.operator->());
}

/// Memory of a standard allocator. NumPy sees raw addresses; the allocator gets back what
/// pointer_to makes of them.
template <class Allocator>
class allocator_source {
    using traits = typename std::allocator_traits<Allocator>::template rebind_traits<unit>;
    using pointer = typename traits::pointer;
    using size_type = typename traits::size_type;

public:
    explicit allocator_source(Allocator&& from) : allocator_(std::move(from)) {}

    void* allocate(std::size_t nbytes) {
        const std::size_t n = units(nbytes);
        if (n > traits::max_size(allocator_)) {
            return nullptr;
        }
        pointer p = traits::allocate(allocator_, static_cast<size_type>(n));
        if (p == nullptr) {
            return nullptr;
        }
        void* raw = as_it_is(raw_address(p));
        if (!is_aligned(raw)) {
            traits::deallocate(allocator_, p, static_cast<size_type>(n));
            return nullptr;
        }
        return raw;
    }
    void deallocate(void* raw, std::size_t nbytes) {
        traits::deallocate(allocator_,
                           std::pointer_traits<pointer>::pointer_to(*static_cast<unit*>(raw)),
                           static_cast<size_type>(units(nbytes)));
    }

private:
    static std::size_t units(std::size_t nbytes) noexcept {
        return nbytes / sizeof(unit) + (nbytes % sizeof(unit) != 0 ? 1 : 0);
    }
    typename traits::allocator_type allocator_;
};

/// Memory of a polymorphic resource, in multiples of 16 bytes: the pools of libstdc++, of
/// GCC 12 at least align 24 bytes to 8, whatever they are asked for.
class resource_source {
public:
    resource_source(std::pmr::memory_resource* from, std::shared_ptr<void> owner) noexcept
        : owner_(std::move(owner)), resource_(from) {}

    void* allocate(std::size_t nbytes) {
        if (nbytes > PTRDIFF_MAX) {
            return nullptr;
        }
        void* p = as_it_is(resource_->allocate(rounded(nbytes), least_alignment));
        if (!is_aligned(p)) {
            resource_->deallocate(p, rounded(nbytes), least_alignment);
            return nullptr;
        }
        return p;
    }
    void deallocate(void* p, std::size_t nbytes) {
        resource_->deallocate(p, rounded(nbytes), least_alignment);
    }

private:
    static std::size_t rounded(std::size_t nbytes) noexcept {
        return (nbytes + least_alignment - 1) & ~(least_alignment - 1);
    }
    std::shared_ptr<void> owner_;
    std::pmr::memory_resource* resource_;
};

}  // namespace ndarena::numpy_detail
#pragma GCC visibility pop

namespace ndarena {

/// A new "mem_handler" capsule over `alloc`, any allocator of C++11 and later, stateful
/// or not, with whatever pointer type. It is moved in, rebound to a type of 16 bytes.
/// `name` is what `ndarena.handler_of` says of the arrays, cut if it is longer than 126
/// bytes. Needs the GIL. Null with a Python exception set if there is no memory
/// (MemoryError) or if moving the allocator throws (RuntimeError).
template <class Allocator, class = typename Allocator::value_type>
PyObject* numpy_handler_from_cpp_allocator(const char* name, Allocator alloc) {
    return numpy_detail::make_capsule<numpy_detail::allocator_source<Allocator>>(name,
                                                                                 std::move(alloc));
}

/// The same over a memory resource, which is asked for multiples of 16 bytes. `owner` is kept
/// until the last array is gone; without it the resource must live as long. ValueError if
/// `resource` is null.
inline PyObject* numpy_handler_from_cpp_allocator(const char* name,
                                                  std::pmr::memory_resource* resource,
                                                  std::shared_ptr<void> owner = nullptr) {
    if (resource == nullptr) {
        PyErr_SetString(PyExc_ValueError, "the memory resource is a null pointer");
        return nullptr;
    }
    return numpy_detail::make_capsule<numpy_detail::resource_source>(name, resource,
                                                                     std::move(owner));
}

/// The same over a resource that the capsule owns or shares.
inline PyObject* numpy_handler_from_cpp_allocator(
    const char* name, std::shared_ptr<std::pmr::memory_resource> resource) {
    std::pmr::memory_resource* to = resource.get();
    return numpy_handler_from_cpp_allocator(name, to, std::move(resource));
}

}  // namespace ndarena
