# fish completion for shunt: shunt completion fish | source

function __shunt_complete
    set -l tokens (commandline -opc)
    set -l command $tokens[1]
    set -e tokens[1]
    set -l candidates ($command __complete $tokens (commandline -ct) 2>/dev/null)
    if test "$candidates[1]" = :files
        __fish_complete_path (commandline -ct)
    else
        printf '%s\n' $candidates
    end
end

complete -c shunt -f -a '(__shunt_complete)'
