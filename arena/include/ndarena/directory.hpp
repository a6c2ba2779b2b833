/// \file
/// The names of an arena: arrays that outlive the processes which made them.
///
/// \code
/// auto opened = ndarena::arena::open("run.nda", ndarena::mode::append);
/// ndarena::array_directory names(*opened);
/// const std::vector<float> loss = {0.5F, 0.25F};
/// ndarena::array_type type{"'<f4'", {2}};
/// if (auto stored = names.put("loss", type, loss.data()); !stored) { ... }
/// if (auto durable = names.flush(); !durable) { ... }
/// auto found = names.get("loss");  // found->data(), found->type().shape
/// \endcode
///
/// Reading takes no lock. Changes are transactions: each call is one of its
/// own, unless the calling thread has begun one. What is written into an array
/// is written; only names are transactional.
///
/// Threads: every member may be called from any thread. A transaction belongs
/// to the thread that began it.
#pragma once

#include <ndarena/arena.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace ndarena {

/// Type and shape of an array, as `.npy` files describe them.
struct array_type {
    /// The type's `descr`, a Python literal: `'<f8'`, or for structures
    /// `[('x', '<f4'), ('y', '<f4')]`; quotes included.
    std::string descr;
    std::vector<std::int64_t> shape;
    bool fortran = false;  ///< column-major
};

/// A named array that this process holds: its memory stays while the object
/// lives, whatever happens to the name. Movable.
class named_array {
public:
    /// Null if the array has no bytes. In mode r it must not be written to.
    void* data() const noexcept { return data_; }
    std::uint64_t nbytes() const noexcept { return nbytes_; }
    const array_type& type() const noexcept { return type_; }
    /// A JSON object in UTF-8, or empty.
    const std::string& attrs() const noexcept { return attrs_; }

private:
    friend class array_directory;
    std::shared_ptr<void> hold_;
    void* data_ = nullptr;
    std::uint64_t nbytes_ = 0;
    array_type type_;
    std::string attrs_;
};

class array_directory {
public:
    /// The names of an arena, which stays open as long as this lives.
    explicit array_directory(arena owner) noexcept : arena_(std::move(owner)) {}

    /// How many names there are.
    result<std::uint64_t> count() const;

    /// All names that start with `prefix`, in the order of their bytes.
    result<std::vector<std::string>> names(std::string_view prefix = {}) const;

    /// errc::not_found if there is no such name.
    result<named_array> get(std::string_view name) const;

    /// Stores a copy of `nbytes` bytes under a name of 1 to 1024 bytes, in the place of
    /// what it stood for. The caller answers for `nbytes` being what the type says.
    /// Errors: no_memory, read_only, lock_timeout.
    result<void> put(std::string_view name, const array_type& type, const void* data,
                     std::uint64_t nbytes);

    /// Names a block of this arena that this process has allocated, without a
    /// copy. The caller's own hold on it stays the caller's.
    result<void> put_block(std::string_view name, const array_type& type, void* block);

    /// False if there is no such name.
    result<bool> erase(std::string_view name);
    /// False if there is no `from`; errc::exists if there is a `to`.
    result<bool> rename(std::string_view from, std::string_view to);
    /// False if there is no such name. `attrs`: a JSON object, which is stored as it is.
    result<bool> set_attrs(std::string_view name, std::string_view attrs);

    /// Begins a transaction of this thread. Errors: invalid (there is one),
    /// lock_timeout.
    result<void> begin(std::uint64_t timeout_ms = 60000);
    /// Makes all of it visible in one step. On error nothing has happened. In
    /// any case the transaction is over.
    result<void> commit();
    /// Forgets all of it. Does nothing without one.
    void abort() noexcept;

    /// After it returned, loss of power keeps the names of now, and every array
    /// that is not written to later. Once it has failed it keeps failing.
    result<void> flush();

    /// In mode r: sees the newest names. Arrays that are held stay as they are.
    result<void> refresh();

    /// One sentence for each way in which names and blocks contradict each other.
    std::vector<std::string> check() const;

private:
    arena arena_;
};

}  // namespace ndarena
