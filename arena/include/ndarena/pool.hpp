/// \file
/// A named pool: containers of Boost.Interprocess that outlive their process
/// and loss of power, in the file of arrays. Needs Boost's headers
/// (Interprocess), which the rest of the library does not.
///
/// \code
/// namespace bip = boost::interprocess;
/// auto opened = ndarena::arena::open("run.nda", ndarena::mode::append);
/// ndarena::pool pool(*opened, "index");
/// pool.update([](ndarena::pool_segment& segment) {
///     using counts = bip::allocator<int, ndarena::pool_segment::segment_manager>;
///     using vector = bip::vector<int, counts>;
///     auto* v = segment.find_or_construct<vector>("v")(segment.get_segment_manager());
///     v->push_back(1);
/// });
/// pool.flush();
/// auto now = pool.read();  // now->find<vector>("v")
/// \endcode
///
/// A pool is one named array of bytes; NumPy sees it as such. Updates are
/// transactions: each works on a copy of the whole pool, which takes the name
/// when it is done. So a process that dies in the midst of it, at any
/// instruction, leaves the former version, and readers keep the one they have.
/// The price is a copy of the pool for every update: gather what belongs
/// together.
#pragma once

#include <ndarena/directory.hpp>

#include <boost/container/throw_exception.hpp>
#include <boost/interprocess/indexes/iset_index.hpp>
#include <boost/interprocess/managed_external_buffer.hpp>
#include <boost/interprocess/mem_algo/rbtree_best_fit.hpp>
#include <boost/interprocess/sync/mutex_family.hpp>
#include <boost/version.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

namespace ndarena {

/// What containers are made in. Nobody else has it, so it locks nothing.
using pool_segment = boost::interprocess::basic_managed_external_buffer<
    char,
    boost::interprocess::rbtree_best_fit<boost::interprocess::null_mutex_family,
                                         boost::interprocess::offset_ptr<void>>,
    boost::interprocess::iset_index>;

/// One version of a pool, for reading. It stays whole while this lives,
/// whatever writers do. Movable.
class pool_view {
public:
    /// The object of that name, or null. `T` is what it was constructed as.
    template <class T>
    const T* find(const char* name) {
        return segment_.find<T>(name).first;
    }
    /// Bytes in use and free.
    std::size_t size() const noexcept { return segment_.get_size(); }
    std::size_t free_bytes() const noexcept { return segment_.get_free_memory(); }

private:
    friend class pool;
    pool_view(named_array held, pool_segment segment) noexcept
        : held_(std::move(held)), segment_(std::move(segment)) {}

    named_array held_;
    pool_segment segment_;
};

class pool {
public:
    static constexpr std::uint64_t default_bytes = 64 * 1024;

    /// The pool of that name; it is made by the first update. `least_bytes`: how
    /// large it is made. It grows by itself, and does not shrink.
    pool(arena owner, std::string name, std::uint64_t least_bytes = default_bytes)
        : names_(owner),
          arena_(std::move(owner)),
          name_(std::move(name)),
          least_bytes_(least_bytes) {}

    /// The version of now. Errors: not_found (no update has been made), format
    /// (something else has the name), corruption.
    result<pool_view> read() const {
        auto found = names_.get(name_);
        if (!found) {
            return found.err();
        }
        if (auto ok = judge(*found); !ok) {
            return ok.err();
        }
        pool_segment segment(boost::interprocess::open_only, body_of(found->data()),
                             size_of(found->data()));
        return pool_view(std::move(*found), std::move(segment));
    }

    /// Calls `change(pool_segment&)` on a copy, and makes that the pool. If the
    /// function runs out of room it is called again on a fresh, larger copy. What it
    /// throws otherwise is passed on, and nothing has happened. Other writers, of
    /// other processes too, wait meanwhile, for names as well: be short.
    /// Errors: as above but not_found; no_memory, read_only, lock_timeout, invalid
    /// (this thread has a transaction).
    template <class Change>
    result<void> update(Change&& change) {
        if (auto begun = names_.begin(); !begun) {
            return begun;
        }
        transaction t{names_};
        std::uint64_t wanted = least_bytes_;
        for (;;) {
            auto former = names_.get(name_);
            if (!former && former.err().code != errc::not_found) {
                return former.err();
            }
            if (former) {
                if (auto ok = judge(*former); !ok) {
                    return ok;
                }
            }
            const std::uint64_t old_bytes = former ? size_of(former->data()) : 0;
            const std::uint64_t nbytes = round(wanted > old_bytes ? wanted : old_bytes);
            block copy{arena_, arena_.allocate(header_bytes + nbytes)};
            if (copy.p == nullptr) {
                return error{errc::no_memory, 0, arena_.refusal(), {}};
            }
            try {
                pool_segment segment =
                    former ? copy_of(*former, copy.p, nbytes) : fresh(copy.p, nbytes);
                change(segment);
            } catch (const boost::interprocess::bad_alloc&) {
                wanted = nbytes * 2;
                continue;
            } catch (const length_error&) {
                wanted = nbytes * 2;  // a vector's way of saying the same
                continue;
            }
            const array_type type{"'|u1'", {static_cast<std::int64_t>(header_bytes + nbytes)}};
            if (auto put = names_.put_block(name_, type, copy.p); !put) {
                return put;
            }
            t.open = false;
            return names_.commit();
        }
    }

    /// After it returned, loss of power keeps the version of now.
    result<void> flush() { return names_.flush(); }

    const std::string& name() const noexcept { return name_; }

private:
    // The bytes before the segment manager, little-endian.
    struct header {
        char magic[8];
        std::uint32_t version;
        std::uint32_t reserved;
        std::uint64_t nbytes;  // of the segment manager
    };
    static constexpr std::uint64_t header_bytes = 64;  // keeps the alignment of blocks
    static constexpr std::uint64_t unit = 4096;
#if BOOST_VERSION >= 107600 && !defined(BOOST_CONTAINER_USE_STD_EXCEPTIONS)
    using length_error = boost::container::length_error;
#else
    using length_error = std::length_error;
#endif
    static constexpr char magic[8] = {'N', 'D', 'P', 'O', 'O', 'L', '\x1a', '\n'};
    static constexpr std::uint32_t version = 1;

    struct transaction {
        array_directory& names;
        bool open = true;
        explicit transaction(array_directory& of) noexcept : names(of) {}
        ~transaction() {
            if (open) {
                names.abort();
            }
        }
        transaction(const transaction&) = delete;
        transaction& operator=(const transaction&) = delete;
    };
    struct block {
        arena& of;
        void* p;
        block(arena& owner, void* address) noexcept : of(owner), p(address) {}
        ~block() {
            if (p != nullptr) {
                (void)of.deallocate(p);  // a name has a hold of its own
            }
        }
        block(const block&) = delete;
        block& operator=(const block&) = delete;
    };

    static std::uint64_t round(std::uint64_t nbytes) noexcept {
        return (nbytes + unit - 1) / unit * unit;
    }
    static void* body_of(void* block) noexcept {
        return static_cast<std::byte*>(block) + header_bytes;
    }
    static std::uint64_t size_of(const void* block) noexcept {
        header h;
        std::memcpy(&h, block, sizeof h);
        return h.nbytes;
    }
    static void write_header(void* block, std::uint64_t nbytes) noexcept {
        std::memset(block, 0, header_bytes);
        header h{};
        std::memcpy(h.magic, magic, sizeof magic);
        h.version = version;
        h.nbytes = nbytes;
        std::memcpy(block, &h, sizeof h);
    }
    result<void> judge(const named_array& found) const {
        header h{};
        if (found.nbytes() >= header_bytes + unit) {
            std::memcpy(&h, found.data(), sizeof h);
        }
        if (std::memcmp(h.magic, magic, sizeof magic) != 0) {
            return error{errc::format, 0, "the array \"" + name_ + "\" is no pool", {}};
        }
        if (h.version != version) {
            return error{errc::format,
                         0,
                         "the pool \"" + name_ + "\" is of version " + std::to_string(h.version) +
                             ", this library knows version 1",
                         {}};
        }
        if (h.nbytes != found.nbytes() - header_bytes) {
            return error{errc::corruption,
                         0,
                         "the pool \"" + name_ + "\" says " + std::to_string(h.nbytes) +
                             " bytes and has " + std::to_string(found.nbytes() - header_bytes),
                         {}};
        }
        return {};
    }
    static pool_segment fresh(void* block, std::uint64_t nbytes) {
        write_header(block, nbytes);
        return {boost::interprocess::create_only, body_of(block), nbytes};
    }
    static pool_segment copy_of(const named_array& former, void* block, std::uint64_t nbytes) {
        const std::uint64_t old_bytes = size_of(former.data());
        std::memcpy(block, former.data(), header_bytes + old_bytes);
        write_header(block, nbytes);
        pool_segment segment(boost::interprocess::open_only, body_of(block), old_bytes);
        if (nbytes > old_bytes) {
            segment.grow(nbytes - old_bytes);
        }
        return segment;
    }

    array_directory names_;
    arena arena_;
    std::string name_;
    std::uint64_t least_bytes_;
};

}  // namespace ndarena
